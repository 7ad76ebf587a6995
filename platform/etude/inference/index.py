"""The nearest tracks of a library: an exact search, or beyond some ten thousand tracks a kept graph."""

import hashlib
import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from usearch.index import Index as Graph
from usearch.index import search as exact_search

from etude.evaluation.metrics import unit
from etude.sources.base import Track

EXACT_UP_TO = 50_000  # vectors: comparing all of 256 numbers takes some 10 ms, and building a graph minutes
_ADDED = 10_000  # at a time, between two calls of `progress`
_BREADTH = 256  # of the walk through the graph when it is searched; usearch's own default is 64


class TrackIndex(Protocol):
    """What searching a library needs, whoever does it."""

    def __len__(self) -> int: ...

    def track(self, track_id: str) -> Track | None: ...

    def search(self, vector_D: NDArray[np.float32], k: int) -> list[tuple[Track, float]]: ...


class Index:
    """Tracks with their vectors, searched by cosine; `open_index` makes one."""

    def __init__(self, tracks: Sequence[Track], unit_ND: NDArray[np.float32], graph: Graph | None) -> None:
        self._tracks = tracks
        self._unit_ND = unit_ND
        self._graph = graph
        self._by_id = {track.id: track for track in tracks}

    def __len__(self) -> int:
        return len(self._tracks)

    def track(self, track_id: str) -> Track | None:
        """The track of this id, None if it is none of the library's."""
        return self._by_id.get(track_id)

    def search(self, vector_D: NDArray[np.float32], k: int) -> list[tuple[Track, float]]:
        """The k nearest tracks with their cosines, best first; fewer if there are fewer."""
        k = min(k, len(self._tracks))
        query_D = unit(vector_D[None])[0].astype(np.float32)
        if self._graph is None:
            found = exact_search(self._unit_ND, query_D, k, exact=True).keys
        else:
            found = self._graph.search(query_D, k).keys
        places = np.asarray(found, np.int64)
        cosines = self._unit_ND[places] @ query_D
        order = np.lexsort((places, -cosines))  # equal ones in the order of the library
        return [(self._tracks[int(places[i])], float(cosines[i])) for i in order]


def open_index(
    tracks: Sequence[Track],
    vectors_ND: NDArray[np.float32],
    folder: Path,
    progress: Callable[[int, int, float], None] = lambda done, total, audio_s: None,
) -> Index:
    """An index of tracks [n] and their vectors [n, dim].

    A graph lies in `folder`, under a name that tells its tracks and vectors: it is built when they have
    changed, and the one before it removed. A file that cannot be read is built anew.
    """
    unit_ND = np.ascontiguousarray(unit(vectors_ND), np.float32)
    if len(tracks) <= EXACT_UP_TO:
        return Index(tracks, unit_ND, None)
    content = hashlib.sha256("\n".join(track.id for track in tracks).encode())
    content.update(unit_ND.tobytes())
    path = folder / f"{content.hexdigest()[:16]}.usearch"
    graph = _kept(path, unit_ND.shape)
    if graph is None:
        graph = _build(unit_ND, progress)
        _keep(graph, path)
    return Index(tracks, unit_ND, graph)


def _kept(path: Path, shape: tuple[int, ...]) -> Graph | None:
    if not path.is_file():
        return None
    graph = _empty(shape[1])
    try:
        graph.load(path)
    except (RuntimeError, ValueError):  # cut short, or written by another version
        return None
    return graph if (len(graph), graph.ndim) == shape else None


def _empty(dim: int) -> Graph:
    return Graph(ndim=dim, metric="cos", dtype="f32", expansion_search=_BREADTH)


def _build(unit_ND: NDArray[np.float32], progress: Callable[[int, int, float], None]) -> Graph:
    n, dim = unit_ND.shape
    graph = _empty(dim)
    for start in range(0, n, _ADDED):
        part = unit_ND[start : start + _ADDED]
        graph.add(np.arange(start, start + len(part), dtype=np.uint64), part)
        progress(start + len(part), n, 0.0)
    return graph


def _keep(graph: Graph, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.tmp")
    try:
        graph.save(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    for other in path.parent.glob("*.usearch"):
        if other != path:
            other.unlink(missing_ok=True)
