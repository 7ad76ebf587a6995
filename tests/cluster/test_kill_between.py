"""A writer that is killed between write, rename and commit: readers see old or new, nothing else."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from etude.data.prepare import LEFT_S, clear_left_behind
from etude.data.store import Store
from tests.cluster.dies import PART, STEPS, shard

OLD = -1


def seen(store: Store, first: int) -> list[int]:
    """What a reader finds of the three tracks from `first` on."""
    where = store.committed(PART)
    ids = [f"t{first + i}" for i in range(3)]
    rows = {
        row["track_id"]: row["value"]
        for name in {where[track_id] for track_id in ids if track_id in where}
        for row in store.read_shard(PART, name).to_pylist()
    }
    return [rows[track_id] for track_id in ids if track_id in where]


def test_readers_see_old_or_new_and_the_next_run_mends(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for number in range(len(STEPS)):
        store.write_shard(PART, shard(10 * number, OLD))
    run = subprocess.run(
        [sys.executable, "-m", "tests.cluster.dies", str(tmp_path)],
        capture_output=True, text=True, timeout=400, check=True,
    )  # fmt: skip
    deaths = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(deaths) == 2 * len(STEPS)
    assert {death["killed_by"] for death in deaths} == {signal.SIGKILL}
    reader, found = Store(str(tmp_path)), set()
    for death in deaths:
        values = seen(reader, death["first"])
        before = [OLD] * 3 if death["kind"] == "old" else []
        assert values in (before, [death["value"]] * 3), death
        found.add((death["kind"], values == before))
    assert found == {("old", True), ("old", False), ("new", True), ("new", False)}  # each was seen

    left = [*tmp_path.rglob("*.tmp")]
    assert left, "a writer that dies before it renames leaves a file behind"
    for death in deaths:
        store.write_shard(PART, shard(death["first"], death["value"]))
        assert seen(reader, death["first"]) == [death["value"]] * 3
    ids = reader.commits(PART)["track_id"].to_pylist()
    assert len(ids) == len({*ids}) == 3 * len(deaths)


def test_what_dead_writers_left_is_cleared_and_what_others_write_is_not(tmp_path: Path) -> None:
    folder = tmp_path / PART
    folder.mkdir(parents=True)
    old, young, shard_file = folder / "a.arrow.1.tmp", folder / "b.arrow.2.tmp", folder / "a.arrow"
    for path in (old, young, shard_file):
        path.write_bytes(b"1")
    long_ago = time.time() - LEFT_S - 1
    for path in (old, shard_file):
        os.utime(path, (long_ago, long_ago))
    clear_left_behind(str(tmp_path))
    assert {path.name for path in folder.iterdir()} == {young.name, shard_file.name}
