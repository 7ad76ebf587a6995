"""Trials of several workers, and what is left of those that are stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from etude.storage.files import Files
from etude.training.checkpoint import load_latest
from etude.training.epoch import Worker
from etude.training.run import Run, train_run
from etude.tuning.trial import SweepConfig
from tests.support.emotion import synthetic_experiment
from tests.support.threads import one_thread
from tests.tuning.sweeps_on_workers import WORDS

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_stopped_trial_leaves_no_place_occupied(tmp_path: Path, mlflow_uri: str) -> None:
    """Of a group that it leaves the next trial would wait for ever: all have the same two CPUs."""
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "platform")])
    done = subprocess.run(
        [sys.executable, "-m", "tests.tuning.sweeps_on_workers", str(tmp_path / "home"), mlflow_uri, "2"],
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=1000, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert "stopped" in told["ended"].values()
    assert "failed" not in told["ended"].values()
    assert told["groups_there_were"] >= 3
    assert told["groups_left"] == []
    assert told["workers"] == [2.0, 2.0]

    experiment = synthetic_experiment(
        tmp_path / "plain", *WORDS, "--training.learning_rate", str(told["rate"]), n=60
    )
    run = Run("alone", experiment, Files(tmp_path / "alone"))
    with one_thread():
        train_run(run, Worker(), lambda metrics, checkpoint: None)
    state = load_latest(run.folder)
    assert state is not None
    # The best rate is a large one, which makes much of the order of sums; test_ray_train.py compares closely.
    assert told["losses"] == pytest.approx([epoch["train/loss"] for epoch in state["history"]], rel=1e-3)


def test_workers_share_no_gpu() -> None:
    with pytest.raises(ValidationError, match="several workers need one each, or none"):
        SweepConfig(workers=2, gpus_per_trial=0.5)
