"""A disk that is really full: one sentence, nothing by halves, and the same command ends well with room."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from etude.data.store import Store
from etude.experiments.audio import AudioExperiment
from etude.export.onnx import read_metadata
from etude.storage.files import Files
from etude.training.checkpoint import load_checkpoint, newest_first
from tests.cluster.conftest import committed, wait_for
from tests.cluster.disk import Disk, small_disk
from tests.export.test_export_job import QUICK, trained
from tests.support.light import PARTS, Light, exact, outcome
from tests.support.nodes import REPOSITORY, nodes


def run(disk: Disk, *command: str) -> "subprocess.CompletedProcess[str]":
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "platform")])  # its folder is another's there
    return subprocess.run(
        [*disk.prefix, sys.executable, *command], env={**os.environ, "PYTHONPATH": paths},
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip


def says_so(code: int, err: str) -> None:
    """One sentence of Étude's, and no trace."""
    assert code == 2, err
    (sentence,) = (line for line in err.splitlines() if line.startswith("etude: "))
    assert "the disk is full" in sentence
    assert "run the same command again" in sentence
    assert "Traceback" not in err


@pytest.mark.slow
def test_while_preparing(light: Light) -> None:
    with small_disk(20_000) as disk, nodes({"num_cpus": 2}, prefix=disk.prefix) as one:
        there = replace(light, store=str(disk.path / "store"))
        seen = replace(light, store=str(disk.seen / "store"))
        driver = one.drive("tests.support.light", json.dumps(asdict(there)))
        wait_for(lambda: committed(seen) > 2, driver)
        disk.fill()
        _, err = driver.communicate(timeout=400)
        says_so(driver.returncode, err)
        left = [path for path in Path(seen.store).rglob("*") if path.is_file()]
        assert not [path for path in left if path.suffix == ".tmp"]
        store = Store(seen.store)
        for part in PARTS:
            for name in store.commits(part)["shard"].to_pylist():
                assert store.read_shard(part, name).num_rows
        disk.make_room()
        came = outcome(one.drive("tests.support.light", json.dumps(asdict(there))))
        assert 0 < came.found < came.total
        assert came.found + came.prepared + came.quarantined == came.total
        exact(seen)


@pytest.mark.slow
def test_while_checkpointing(tmp_path: Path) -> None:
    with small_disk(20_000) as disk:
        full = run(disk, "-m", "tests.cluster.trains", str(disk.path), "2")
        says_so(full.returncode, full.stderr)
        folder = disk.seen / "run"
        assert [load_checkpoint(folder / name)["epoch"] for name in newest_first(Files(folder))] == [2, 1]
        assert load_checkpoint(folder / "best.pt")["epoch"] <= 2
        assert not [*folder.glob("*.tmp")]
        disk.make_room()
        resumed = run(disk, "-m", "tests.cluster.trains", str(disk.path))
        assert resumed.returncode == 0, resumed.stderr
        undisturbed = run(disk, "-m", "tests.cluster.trains", str(tmp_path))
    assert json.loads(resumed.stdout) == json.loads(undisturbed.stdout)


@pytest.mark.slow
def test_while_exporting(demo: AudioExperiment, tmp_path: Path) -> None:
    data = demo.model_dump() | {"student": QUICK, "training": {"epochs": 1, "batch_size": 4}}
    checkpoint = trained(AudioExperiment(**data), tmp_path / "mine")
    with small_disk(20_000) as disk:
        command = (
            str(REPOSITORY / "jobs" / "export.py"),
            str(checkpoint),
            "--out",
            str(disk.path / "out"),
            "--home",
            str(demo.home),
        )
        disk.fill()
        full = run(disk, *command)
        says_so(full.returncode, full.stderr)
        assert not list((disk.seen / "out").rglob("*"))
        disk.make_room()
        again = run(disk, *command)
        assert again.returncode == 0, again.stderr
        files = sorted((disk.seen / "out").glob("*.onnx"))
        assert files
        assert all(read_metadata(path)["parity"] for path in files)
