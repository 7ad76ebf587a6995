"""Vectors as Parquet: whole parts, one model a folder, exact bytes."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from etude.errors import UserError
from etude.inference.vectors import VectorFolder
from etude.sources.base import Track

VECTORS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def track(i: int, **tags: str) -> Track:
    return Track(f"t-{i}", "", f"Title {i}", "Artist", "Album", tags=tags)


def test_readers_of_parquet_see_one_table(tmp_path: Path) -> None:
    folder = VectorFolder(tmp_path / "vectors.parquet", "m", 4)
    assert folder.done() == set()
    folder.create()
    folder.write([(track(0), VECTORS[0]), (track(1, item_id="fp_1"), VECTORS[1])])
    folder.write([])
    folder.write([(track(2), VECTORS[2])])
    table = pq.read_table(folder.path).sort_by("track_id")
    assert table["track_id"].to_pylist() == ["t-0", "t-1", "t-2"]
    assert table["item_id"].to_pylist() == [None, "fp_1", None]
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), VECTORS)
    assert VectorFolder(folder.path, "m", 4).done() == {"t-0", "t-1", "t-2"}


def test_names_that_are_not_utf8_are_written(tmp_path: Path) -> None:
    folder = VectorFolder(tmp_path, "m", 4)
    folder.write([(Track("t-0", "", "caf\udce9"), VECTORS[0])])
    assert pq.read_table(folder.path)["title"].to_pylist() == ["caf?"]


def test_batches_hold_the_bytes_that_audiomuse_stores(tmp_path: Path) -> None:
    folder = VectorFolder(tmp_path, "m", 4)
    folder.write([(track(i, item_id=f"fp_{i}"), VECTORS[i]) for i in range(3)])
    (batch,) = folder.batches()
    assert batch == [(f"fp_{i}", VECTORS[i].astype("<f4").tobytes()) for i in range(3)]


def test_batches_of_a_shared_folder(tmp_path: Path) -> None:
    folder = VectorFolder(tmp_path, "m", 4)
    folder.write([(track(0), VECTORS[0]), (track(1, item_id="fp_1"), VECTORS[1])])
    folder.write([(track(1, item_id="fp_1"), VECTORS[1]), (track(2, item_id="fp_2"), VECTORS[2])])
    mine = [track(1), track(2)]
    assert sorted(id for batch in folder.batches(mine) for id, _ in batch) == ["fp_1", "fp_2"]
    assert [batch for batch in folder.batches([]) if batch] == []
    with pytest.raises(UserError, match="without an id of AudioMuse-AI"):
        list(folder.batches([track(0)]))


def test_an_id_comes_once(tmp_path: Path) -> None:
    folder = VectorFolder(tmp_path, "m", 4)
    folder.write([(track(0, item_id="fp_1"), VECTORS[0]), (track(1, item_id="fp_1"), VECTORS[1])])
    folder.write([(track(2, item_id="fp_1"), VECTORS[2])])
    assert [id for batch in folder.batches() for id, _ in batch] == ["fp_1"]


def test_what_is_wrong_with_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    VectorFolder(tmp_path / "a", "m", 4).write([(track(0), VECTORS[0])])
    with pytest.raises(UserError, match="of another model"):
        VectorFolder(tmp_path / "a", "other", 4)
    with pytest.raises(UserError, match="without an id of AudioMuse-AI"):
        list(VectorFolder(tmp_path / "a", "m", 4).batches())
    (tmp_path / "a" / "bad.parquet").write_bytes(b"bad")
    with pytest.raises(UserError, match="not a Parquet file"):
        VectorFolder(tmp_path / "a", "m", 4)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot use"):
        VectorFolder(tmp_path / "file", "m", 4).create()
