"""Readers of the store see whole, committed shards or nothing."""

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from etude.audio.recipe import FeatureRecipe
from etude.data import store as store_module
from etude.data.catalogue import track_of
from etude.data.store import FORMAT, Quarantined, Store, features_part, targets_part
from etude.errors import UserError
from etude.sources.base import Track
from etude.storage.cache import DiskCache
from etude.storage.files import Files
from tests.support.s3_server import address, s3_faults

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


@pytest.mark.parametrize("damage", [b"", b'{"shard": "x', bytes(20)], ids=["empty", "cut", "zeros"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: bytes) -> None:
    store = Store(tmp_path)
    store.write_shard(PART, rows("a"))
    name = store.write_shard(PART, rows("b"))
    store.write_quarantine("r", [Quarantined("c", "uri", "title", "decode", "noise")])
    record, shard = tmp_path / f"commits/{PART}/{name}.json", tmp_path / f"{PART}/{name}.arrow"
    refused = tmp_path / "quarantine/r/c.json"
    for path, read in (
        (record, lambda: store.committed(PART)),
        (shard, lambda: store.read_shard(PART, name)),
        (refused, lambda: store.quarantined("r")),
    ):
        path.write_bytes(damage)
        with pytest.raises(UserError, match=rf"{path} is damaged .*: remove it.* and prepare again"):
            read()
    record.unlink()
    assert set(store.committed(PART)) == {"a"}
    store.write_shard(PART, rows("b"))
    assert store.read_shard(PART, name)["track_id"].to_pylist() == ["b"]


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


def test_many_commits_become_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "COMPACT_RECORDS", 4)
    store = Store(tmp_path)
    for name in "abc":
        store.write_shard(PART, rows(name, "shared"))
    assert not store.compact(PART)  # too few to be worth it
    store.write_shard(PART, rows("d"))
    before = store.committed(PART)
    assert store.compact(PART)
    assert [path.suffix for path in (tmp_path / "commits" / PART).iterdir()] == [".arrow"]
    assert Store(tmp_path).committed(PART) == before
    assert store.parts("features") == [PART]

    # What is committed since counts at once, and is taken in the next time.
    for name in "efgh":
        store.write_shard(PART, rows(name))
    assert set(store.committed(PART)) == {*"abcdefgh", "shared"}
    assert store.compact(PART)
    assert len(list((tmp_path / "commits" / PART).iterdir())) == 1
    assert set(store.committed(PART)) == {*"abcdefgh", "shared"}


def test_a_compaction_that_was_cut_off_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "COMPACT_RECORDS", 2)
    store = Store(tmp_path)
    for name in "abc":
        store.write_shard(PART, rows(name))
    before = store.committed(PART)

    def killed(self: Files, paths: Iterable[str]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Files, "delete_all", killed)
        store.compact(PART)
    assert len(list((tmp_path / "commits" / PART).iterdir())) == 4
    assert store.commits(PART).num_rows == 3
    assert store.committed(PART) == before
    assert store.compact(PART)
    assert store.committed(PART) == before


def test_who_reads_while_commits_are_put_together_sees_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process compacts between the reader's listing and its reading."""
    monkeypatch.setattr(store_module, "COMPACT_RECORDS", 2)
    reader, writer = Store(tmp_path), Store(tmp_path)
    for name in "abc":
        writer.write_shard(PART, rows(name))
    read_all = Files.read_all

    def after_a_compaction(self: Files, paths: Iterable[str]) -> dict[str, bytes]:
        monkeypatch.setattr(Files, "read_all", read_all)
        writer.compact(PART)
        return self.read_all(paths)

    monkeypatch.setattr(Files, "read_all", after_a_compaction)
    assert set(reader.committed(PART)) == {"a", "b", "c"}
    assert len(list((tmp_path / "commits" / PART).iterdir())) == 1


def test_writers_and_compactions_at_once_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "COMPACT_RECORDS", 3)

    def write(writer: int) -> None:
        store = Store(tmp_path)
        for number in range(40):
            store.write_shard(PART, rows(f"{writer}-{number}"))
            store.compact(PART)
            assert f"{writer}-{number}" in store.committed(PART)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert len(Store(tmp_path).committed(PART)) == 160


def test_a_store_on_s3_is_read_the_same_through_its_cache(
    s3_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "COMPACT_RECORDS", 20)
    with s3_faults(s3_port) as proxy:
        store = Store(address(proxy.port, "store"), DiskCache(tmp_path, 10**6))
        names = [f"{number}" for number in range(30)]
        for name in names:
            store.write_shard(PART, rows(name))
        assert store.compact(PART)
        where = store.committed(PART)
        assert set(where) == set(names)
        proxy.requests.clear()
        for _ in range(3):
            assert store.read_shard(PART, where["7"])["track_id"].to_pylist() == ["7"]
        assert proxy.requests["GET"] == 1
        assert store.free_bytes() is None


def test_opening_writes_nothing_and_the_first_write_marks_the_format(tmp_path: Path) -> None:
    store = Store(tmp_path / "new")
    assert store.committed(PART) == {}
    assert store.free_bytes()
    assert not (tmp_path / "new").exists()
    store.write_shard(PART, rows("a"))
    assert (tmp_path / "new" / "FORMAT").read_text() == FORMAT


def test_the_catalogue_keeps_every_field_and_every_file_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    odd = os.fsdecode(b"caf\xe9.mp3")
    tracks = [
        Track("1", "u", "T", "A", "B", 1.5, 7, "CC0", {"key": "G major"}),
        Track("2", odd, odd),
        Track("3", "u", "T", captions=("A slow piece.", "静かな曲。"), clip="c", held_out=True),
    ]
    store.write_catalogue("demo-1", tracks)
    assert list(store.read_catalogue("demo-1")) == tracks
    with pytest.raises(UserError, match="knows no tracks of folder-9"):
        store.read_catalogue("folder-9")


def test_a_catalogue_from_before_a_field_is_read(tmp_path: Path) -> None:
    before = ("id", "uri", "title", "artist", "album", "duration_s", "n_bytes", "license", "tags")
    track = Track("1", "u", "T", "A", "B", 1.5, 7, "CC0", {"key": "G major"})
    row = json.dumps({name: getattr(track, name) for name in before})
    assert track_of(row) == track
    assert track_of(row).captions == ()


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


def test_a_commit_that_stays_unreadable_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_shard(PART, rows("a"))
    (tmp_path / "commits" / PART / "gone.json").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"gone\.json is listed and cannot be read: remove it"):
        store.committed(PART)
