"""The nearest tracks of a library as Milvus finds them: another `etude.inference.index.TrackIndex`."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from etude.errors import UserError
from etude.inference.milvus import Milvus, MilvusConfig, open_milvus
from etude.inference.milvus_collection import MOST_DIMS, Collection, fill
from etude.inference.reduction import Reduction, digest, fit_reduction, read_reduction
from etude.sources.base import Track

_NO_PROGRESS: Callable[[int, int, float], None] = lambda done, total, audio_s: None  # noqa: E731


class MilvusIndex:
    """Tracks with their vectors in Milvus, searched by cosine; `open_milvus_index` makes one."""

    def __init__(
        self, tracks: Sequence[Track], milvus: Milvus, collection: Collection, reduction: Reduction | None
    ) -> None:
        self._by_id = {track.id: track for track in tracks}
        self._milvus = milvus
        self._collection = collection
        self._reduction = reduction

    def __len__(self) -> int:
        return len(self._by_id)

    def track(self, track_id: str) -> Track | None:
        """The track of this id, None if it is none of the library's."""
        return self._by_id.get(track_id)

    def search(self, vector_D: NDArray[np.float32], k: int) -> list[tuple[Track, float]]:
        """The k nearest tracks with their cosines, best first; fewer if there are fewer.

        Raises UserError if Milvus no longer answers, or if the collection was filled with others meanwhile.
        """
        query_d, share = vector_D, 1.0
        if self._reduction:
            reduced, shares = self._reduction.queries(vector_D[None])
            query_d, share = reduced[0], float(shares[0])
        found = self._collection.search(query_d, k)
        if any(track_id not in self._by_id for track_id, _ in found):
            raise UserError(
                f"another command has filled {self._milvus.place} with other tracks: run this one again, or "
                "give it another milvus.collection"
            )
        return [(self._by_id[track_id], share * cosine) for track_id, cosine in found]

    def close(self) -> None:
        """Leave Milvus; an embedded database may then be opened elsewhere."""
        self._milvus.close()


def open_milvus_index(
    tracks: Sequence[Track],
    vectors_ND: NDArray[np.float32],
    config: MilvusConfig,
    model_id: str,
    folder: Path,
    progress: Callable[[int, int, float], None] = _NO_PROGRESS,
) -> MilvusIndex:
    """An index of tracks [n] and their vectors [n, dim] in the collection that `config` names.

    It is filled unless it holds them already. Vectors that are too long for Milvus are reduced, to directions
    that are kept in `folder`, where an embedded database lies as well. Raises UserError if Milvus cannot be
    used.
    """
    milvus = open_milvus(config, folder)
    try:
        reduction = None
        if vectors_ND.shape[1] > MOST_DIMS:
            reduction = _kept_reduction(vectors_ND, config.reduce_to, folder, progress)
            model_id = f"{model_id}-{reduction.sha256[:16]}"  # reduced otherwise, they cannot be compared
        collection = fill(milvus, config.collection, tracks, vectors_ND, model_id, reduction, progress)
    except BaseException:
        milvus.close()
        raise
    return MilvusIndex(tracks, milvus, collection, reduction)


def _kept_reduction(
    vectors_ND: NDArray[np.float32], to: int, folder: Path, progress: Callable[[int, int, float], None]
) -> Reduction:
    """The reduction of these very vectors, from its file or found anew; the one before it is removed."""
    path = folder / f"{digest(vectors_ND)[:16]}-{to}.reduction.npz"
    reduction = read_reduction(path)
    if reduction is None:
        reduction = fit_reduction(vectors_ND, to, progress=progress)
        reduction.save(path)
    for other in folder.glob("*.reduction.npz"):
        if other != path:
            other.unlink(missing_ok=True)
    return reduction
