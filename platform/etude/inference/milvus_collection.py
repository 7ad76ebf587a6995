"""A library's vectors in Milvus: filled whole, searched by cosine, never compared with another model's.

The fields are those of the Navidrome fork whose collections players already read (facts/
projection_and_emotion.md, a, "Milvus"); its index as well, HNSW by COSINE, where the sample it came with
searched by L2. milvus-lite knows the same index; it knows FLAT too, which took ten times as long there on
5,000 vectors of 1,536, for it copies and measures all of them at every query.

What readers name is an alias. Every filling is a collection of its own, whose name tells what is in it, and
the alias is turned to it when all rows were counted: so nobody sees half a library.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.errors import UserError
from etude.evaluation.metrics import unit
from etude.inference.milvus import CALL_S, Milvus
from etude.inference.reduction import Reduction, digest
from etude.sources.base import Track

MOST_DIMS = 32_768  # of a FLOAT_VECTOR, in every Milvus; milvus-lite would take more
ID_BYTES, MODEL_BYTES = 512, 256
_MESSAGE_BYTES = 16 * 2**20  # of vectors in one insert; servers take 64 MiB or more
_MOST_ROWS = 1000  # at a time: before they are reduced, they may be far longer than what is sent
_BUILD_S = 3600  # for an index
_BREADTH = 256  # of the walk through the graph, as in `etude.inference.index`
_MOST_HITS = 16_384  # Milvus answers no more
_SAME = 6  # decimal places to which cosines are equal: float32 sums differ beyond
_NO_PROGRESS: Callable[[int, int, float], None] = lambda done, total, audio_s: None  # noqa: E731


class Collection:
    """The vectors of one model under a name; `fill` and `open_collection` give one."""

    def __init__(self, milvus: Milvus, name: str, model_id: str) -> None:
        self._milvus = milvus
        self._name = name
        self._model_id = model_id
        self._check()

    def __len__(self) -> int:
        with self._milvus.told(f"count {self._name}"):
            return _count(self._milvus, self._name)

    def search(self, query_D: NDArray[np.floating], k: int) -> list[tuple[str, float]]:
        """The ids of the k nearest with their cosines, best first, equal ones in the order of their ids.

        Fewer if there are fewer. Raises UserError if the collection was filled for another model meanwhile.
        """
        limit = k + 1
        while True:
            found = self._nearest(query_D, min(limit, _MOST_HITS))
            # Of several that are equal to the last one wanted, Milvus gives any: all of them are needed.
            if len(found) < limit or limit >= _MOST_HITS or found[-1][1] < found[k - 1][1]:
                return sorted(found, key=lambda hit: (-hit[1], hit[0]))[:k]
            limit *= 2

    def _nearest(self, query_D: NDArray[np.floating], limit: int) -> list[tuple[str, float]]:
        query = unit(query_D[None])[0].astype(np.float32)
        try:
            with self._milvus.told(f"search {self._name}"):
                (hits,) = self._milvus.client.search(
                    self._name,
                    data=[query],
                    anns_field="embedding",
                    limit=limit,
                    filter=f"model_id == {_quoted(self._model_id)}",
                    search_params={"metric_type": "COSINE", "params": {"ef": max(_BREADTH, limit)}},
                    output_fields=["name"],
                    timeout=CALL_S,
                )
        except UserError:
            self._check()
            raise
        if not hits:
            self._check()
        return [(str(hit["name"]), round(float(hit["distance"]), _SAME)) for hit in hits]

    def _check(self) -> None:
        """Raises UserError if the name stands for nothing, or for another model's vectors."""
        client, name, place = self._milvus.client, self._name, self._milvus.place
        mend = "search the library once with this model, which fills it, or give another milvus.collection"
        with self._milvus.told(f"open {name}"):
            if not client.has_collection(name, timeout=CALL_S):
                raise UserError(f"there is no collection {name} in {place}: {mend}")
            client.load_collection(name, timeout=_BUILD_S)
            others = client.query(
                name,
                filter=f"model_id != {_quoted(self._model_id)}",
                output_fields=["model_id"],
                limit=1,
                timeout=CALL_S,
            )
        if others:
            raise UserError(
                f"the collection {name} in {place} holds vectors of {others[0]['model_id']}, which have "
                f"nothing to do with those of {self._model_id}: {mend}"
            )


def open_collection(milvus: Milvus, name: str, model_id: str) -> Collection:
    """A collection that was filled before. Raises UserError if there is none, or if it is another model's."""
    return Collection(milvus, name, model_id)


def fill(
    milvus: Milvus,
    name: str,
    tracks: Sequence[Track],
    vectors_ND: NDArray[np.floating],
    model_id: str,
    reduction: Reduction | None = None,
    progress: Callable[[int, int, float], None] = _NO_PROGRESS,
) -> Collection:
    """Let `name` stand for these tracks [n] and their vectors [n, dim], and nothing else.

    With the contents that are there already it does nothing. What was there before is seen until all is
    there, and dropped then; what an interrupted filling left is dropped as well. Of two that fill one name
    at a time the first to end wins, and the other may be told that its collection is gone. `reduction` is
    applied to the vectors as they are sent, so that no second array of them is needed.

    Raises UserError if Milvus does not take them, or if rows are missing afterwards.
    """
    dim = reduction.dim if reduction else vectors_ND.shape[1]
    _check_rows(tracks, vectors_ND, dim, model_id)
    contents = _contents(tracks, vectors_ND, model_id, reduction)
    with milvus.told(f"fill {name}"):
        current, versions = _versions(milvus, name)
        _drop(milvus, [version for version in versions if version != current])
        if current and current.split("_")[-2] == contents:
            milvus.client.load_collection(current, timeout=_BUILD_S)
            if _count(milvus, current) == len(tracks):
                return Collection(milvus, name, model_id)
        new = f"{name}_{contents}_{uuid.uuid4().hex[:8]}"
        _create(milvus, new, dim)
        _insert(milvus, new, tracks, vectors_ND, model_id, reduction, progress)
        _index(milvus, new)
        if (counted := _count(milvus, new)) != len(tracks):
            raise UserError(
                f"{milvus.place} counts {counted} of {len(tracks)} rows that it was given: run the same "
                "command again, and no other that fills it"
            )
        turn = milvus.client.alter_alias if current else milvus.client.create_alias
        turn(collection_name=new, alias=name, timeout=CALL_S)
        _drop(milvus, [current] if current else [])
    return Collection(milvus, name, model_id)


def _check_rows(tracks: Sequence[Track], vectors_ND: NDArray[np.floating], dim: int, model_id: str) -> None:
    assert len(tracks) == len(vectors_ND) == len({track.id for track in tracks})
    if not tracks:
        raise UserError("there are no tracks to search among: prepare a library first")
    if dim > MOST_DIMS:
        raise UserError(
            f"vectors of {dim:,} numbers are more than Milvus takes, {MOST_DIMS:,}: they have to be reduced"
        )
    for start in range(0, len(tracks), _MOST_ROWS):
        if not np.isfinite(vectors_ND[start : start + _MOST_ROWS]).all():
            raise UserError("the vectors hold what is no number: the model is damaged, export it again")
    for what, text, limit in [
        ("track id", max((track.id for track in tracks), key=lambda id: len(id.encode())), ID_BYTES),
        ("model id", model_id, MODEL_BYTES),
    ]:
        if len(text.encode()) > limit:
            raise UserError(f"the {what} {text[:40]}... is longer than the {limit} bytes that Milvus keeps")


def _contents(
    tracks: Sequence[Track], vectors_ND: NDArray[np.floating], model_id: str, reduction: Reduction | None
) -> str:
    """Sixteen digits that change with anything that is filled in."""
    reduced_by = reduction.sha256 if reduction else ""
    parts = [model_id, reduced_by, digest(vectors_ND), *(track.id for track in tracks)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _versions(milvus: Milvus, name: str) -> tuple[str | None, list[str]]:
    """The filling that the name stands for, if any, and all fillings of that name, half-filled ones too."""
    pattern = re.compile(rf"{name}_[0-9a-f]{{16}}_[0-9a-f]{{8}}")
    client = milvus.client
    versions = [one for one in client.list_collections(timeout=CALL_S) if pattern.fullmatch(one)]
    for version in versions:
        if name in client.list_aliases(version, timeout=CALL_S)["aliases"]:
            return version, versions
    if client.has_collection(name, timeout=CALL_S):
        raise UserError(
            f"{milvus.place} has a collection {name} that was not filled here: give another milvus.collection"
        )
    return None, versions


def _drop(milvus: Milvus, versions: Sequence[str]) -> None:
    for version in versions:
        milvus.client.drop_collection(version, timeout=CALL_S)


def _create(milvus: Milvus, name: str, dim: int) -> None:
    from pymilvus import DataType

    schema = milvus.client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("name", DataType.VARCHAR, max_length=ID_BYTES, is_primary=True)  # the track's id
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=dim)
    schema.add_field("offset", DataType.FLOAT)  # seconds into the track, 0 for all of it
    schema.add_field("model_id", DataType.VARCHAR, max_length=MODEL_BYTES)
    milvus.client.create_collection(name, schema=schema, consistency_level="Strong", timeout=CALL_S)


def _insert(
    milvus: Milvus,
    name: str,
    tracks: Sequence[Track],
    vectors_ND: NDArray[np.floating],
    model_id: str,
    reduction: Reduction | None,
    progress: Callable[[int, int, float], None],
) -> None:
    dim = reduction.dim if reduction else vectors_ND.shape[1]
    at_once = max(1, min(_MOST_ROWS, _MESSAGE_BYTES // (4 * dim)))
    for start in range(0, len(tracks), at_once):
        part = vectors_ND[start : start + at_once]
        sent = reduction.tracks(part) if reduction else unit(part).astype(np.float32)
        rows: list[dict[str, Any]] = [
            {"name": track.id, "embedding": vector, "offset": 0.0, "model_id": model_id}
            for track, vector in zip(tracks[start : start + at_once], sent, strict=True)
        ]
        milvus.client.insert(name, rows, timeout=CALL_S)
        progress(start + len(rows), len(tracks), 0.0)


def _index(milvus: Milvus, name: str) -> None:
    client = milvus.client
    client.flush(name, timeout=_BUILD_S)  # rows that are still in memory are searched without the index
    params = client.prepare_index_params()
    params.add_index(
        "embedding", index_type="HNSW", metric_type="COSINE", params={"M": 50, "efConstruction": 250}
    )
    client.create_index(name, params, timeout=_BUILD_S)
    client.load_collection(name, timeout=_BUILD_S)


def _count(milvus: Milvus, name: str) -> int:
    rows = milvus.client.query(
        name, filter="", output_fields=["count(*)"], consistency_level="Strong", timeout=CALL_S
    )
    return int(rows[0]["count(*)"])


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
