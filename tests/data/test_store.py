"""Readers of the store see whole, committed shards or nothing."""

import os
from pathlib import Path

import pyarrow as pa
import pytest

from etude.audio.recipe import FeatureRecipe
from etude.data.store import Quarantined, Store, features_part, targets_part
from etude.errors import UserError
from etude.sources.base import Track

PART = "features/abc"


def rows(*ids: str) -> pa.Table:
    return pa.table({"track_id": list(ids), "value": [len(name) for name in ids]})


def test_the_same_tracks_replace_themselves(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.write_shard(PART, rows("a", "b")) == store.write_shard(PART, rows("b", "a"))
    assert len(list((tmp_path / PART).iterdir())) == 1
    assert set(store.committed(PART)) == {"a", "b"}


def test_a_shard_without_its_commit_does_not_exist(tmp_path: Path) -> None:
    store = Store(tmp_path)
    name = store.write_shard(PART, rows("a"))
    (tmp_path / "commits" / PART / f"{name}.json").unlink()
    assert store.committed(PART) == {}
    assert store.parts("features") == []


@pytest.mark.parametrize("failing", ["shard", "commit"])
def test_a_write_that_fails_half_way_leaves_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    store = Store(tmp_path)
    name = store.write_shard(PART, rows("a"))
    before = (tmp_path / PART / f"{name}.arrow").read_bytes()
    replace = os.replace

    def fail(source: str, target: str) -> None:
        if ("commits" in str(target)) == (failing == "commit"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        store.write_shard(PART, rows("b"))
    monkeypatch.undo()
    assert set(store.committed(PART)) == {"a"}
    assert (tmp_path / PART / f"{name}.arrow").read_bytes() == before
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_track_in_two_shards_is_read_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    names = {store.write_shard(PART, rows("a", "b")), store.write_shard(PART, rows("b", "c"))}
    where = store.committed(PART)
    assert set(where) == {"a", "b", "c"}
    assert where["b"] == min(names)
    assert store.read_shard(PART, where["c"])["track_id"].to_pylist() == ["b", "c"]


def test_the_catalogue_keeps_every_field_and_every_file_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    odd = os.fsdecode(b"caf\xe9.mp3")
    tracks = [
        Track("1", "u", "T", "A", "B", 1.5, 7, "CC0", {"key": "G major"}),
        Track("2", odd, odd),
    ]
    store.write_catalogue("demo-1", tracks)
    assert store.read_catalogue("demo-1") == tracks
    with pytest.raises(UserError, match="knows no tracks of folder-9"):
        store.read_catalogue("folder-9")


def test_quarantine_is_kept_and_released(tmp_path: Path) -> None:
    store = Store(tmp_path)
    bad = Quarantined("a", "u", "t", "decode", "empty file", 2)
    store.write_quarantine("r", [bad])
    assert store.quarantined("r") == {"a": bad}
    assert store.quarantined("other recipe") == {}
    store.release("r", ["a", "never there"])
    assert store.quarantined("r") == {}


def test_another_recipe_never_finds_old_features() -> None:
    recipe = FeatureRecipe()
    other = FeatureRecipe(n_mels=64)
    assert features_part(recipe) != features_part(other)
    # Targets do not see the mel, so changing it keeps them; cutting the track otherwise does not.
    assert targets_part("t", recipe) == targets_part("t", other)
    assert targets_part("t", recipe) != targets_part("t", FeatureRecipe(hop_samples=480_000))


def test_a_store_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "FORMAT").write_text("99")
    with pytest.raises(UserError, match="store of format '99'"):
        Store(tmp_path)


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match="cannot use"):
        Store(tmp_path / "x")
