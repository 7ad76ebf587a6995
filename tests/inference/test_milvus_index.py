"""Milvus stands in for the index on disk: the same tracks, the same cosines, for long vectors too."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from etude.errors import UserError
from etude.inference.index import open_index
from etude.inference.milvus import MilvusConfig
from etude.inference.milvus_collection import MOST_DIMS
from etude.inference.milvus_index import open_milvus_index
from etude.sources.base import Track
from tests.support.milvus_server import exact, milvus_server, tracks, vectors

LONG = MOST_DIMS + 100


def ids(found: list[tuple[Track, float]]) -> list[str]:
    return [track.id for track, _ in found]


def test_it_answers_as_the_index_on_disk(tmp_path: Path) -> None:
    library = vectors(300)
    on_disk = open_index(tracks(300), library, tmp_path / "index")
    in_milvus = open_milvus_index(tracks(300), library, MilvusConfig(), "m", tmp_path)
    for query in vectors(10, seed=1):
        wanted, found = on_disk.search(query, 10), in_milvus.search(query, 10)
        assert ids(found) == ids(wanted)
        assert [c for _, c in found] == pytest.approx([c for _, c in wanted], abs=1e-5)
    assert len(in_milvus) == 300
    track = in_milvus.track("t-0007")
    assert track is not None and track.title == "Track 7"
    assert in_milvus.track("7.wav") is None
    in_milvus.close()
    open_milvus_index(tracks(300), library, MilvusConfig(), "m", tmp_path).close()  # it can be opened again


def test_vectors_too_long_for_milvus_are_reduced_and_a_small_librarys_answers_are_exact(
    tmp_path: Path,
) -> None:
    library, config = 0.1 * vectors(1, LONG) + vectors(30, LONG, seed=1), MilvusConfig(reduce_to=32)

    def check(library_ND: NDArray[np.float32]) -> Path:
        index = open_milvus_index(tracks(len(library_ND)), library_ND, config, "m", tmp_path)
        inside, outside = library_ND[4] + library_ND[9], vectors(1, LONG, seed=2)[0]
        for query in (inside, outside, inside + outside):
            wanted, found = exact(query, library_ND, 10), index.search(query, 10)
            assert ids(found) == [track_id for track_id, _ in wanted]
            assert [c for _, c in found] == pytest.approx([c for _, c in wanted], abs=1e-5)
        index.close()
        (kept,) = tmp_path.glob("*.reduction.npz")
        return kept

    first = check(library)
    written = first.stat().st_mtime_ns
    assert check(library) == first
    assert first.stat().st_mtime_ns == written  # not found anew
    first.write_bytes(first.read_bytes()[:-99])
    check(library)  # damaged, so found anew
    assert check(library[:20]) != first  # other vectors


def test_a_collection_that_another_command_fills_is_not_mistaken_for_ones_own(tmp_path: Path) -> None:
    others = [Track(f"o-{i}", f"{i}.wav", f"Other {i}") for i in range(9)]
    with milvus_server(tmp_path / "served") as address:
        config = MilvusConfig(uri=address, collection="shared")
        mine = open_milvus_index(tracks(20), vectors(20), config, "m", tmp_path)
        theirs = open_milvus_index(others, vectors(9, seed=1), config, "m", tmp_path)
        assert {track.id for track, _ in theirs.search(vectors(1)[0], 20)} == {track.id for track in others}
        with pytest.raises(UserError, match=f"another command has filled {address} with other tracks"):
            mine.search(vectors(1)[0], 20)
        mine.close()
        theirs.close()
