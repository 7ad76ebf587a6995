"""A run that is killed while it writes a checkpoint goes on from the one before, to the same losses."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from etude.storage.files import Files
from etude.training.checkpoint import load_latest, newest_first


def python(module: str, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", module, *words], capture_output=True, text=True, timeout=400, check=False
    )


@pytest.mark.slow
def test_the_checkpoint_before_loads_and_nothing_is_lost(tmp_path: Path) -> None:
    whole = json.loads(python("tests.cluster.trains", str(tmp_path / "whole")).stdout)
    for what in ("fsync", "replace"):
        root = tmp_path / what
        died = python("tests.cluster.dies_checkpointing", str(root), "3", what)
        assert died.returncode == -signal.SIGKILL, died.stderr
        files = Files(root / "run")
        assert len(newest_first(files)) == 2
        state = load_latest(files)
        assert state is not None
        if what == "fsync":
            assert state["epoch"] == 2
            assert [*(root / "run").glob("*.tmp")], "it was killed before it renamed"
        assert state["epoch"] in (2, 3)
        rest = python("tests.cluster.trains", str(root))
        assert json.loads(rest.stdout) == whole, rest.stderr
