"""A sweep whose driver is killed equals one that was left alone."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from mlflow.tracking import MlflowClient

from etude.tracking.mlflow import Tracking
from etude.training.checkpoint import load_checkpoint
from etude.training.loop import SCORE
from etude.tuning.journal import Journal
from etude.tuning.space import Distribution
from etude.tuning.sweep import SweepResult, run_sweep
from etude.tuning.trial import SweepConfig
from tests.support.emotion import synthetic_experiment
from tests.support.mortal import Mortal

RATE = {"training.learning_rate": Distribution(loguniform=(1e-5, 1e-2))}
DECAY = {"training.weight_decay": Distribution(choice=[0.0, 0.05, 0.3])}
ASHA = {"grace_epochs": 2, "reduction_factor": 2}
KILLS = {"asha": (0.25, 0.6), "optuna": (0.5,), "population": (0.65,)}  # shares of the whole journal
EPOCHS = {"asha": 6, "optuna": 5, "population": 4}
SWEEPS: dict[str, dict[str, Any]] = {
    "asha": {"trials": 6, "asha": ASHA, "concurrent": 2},
    # What Optuna proposes depends on which trials have ended by then: one at a time, on nothing else.
    "optuna": {"trials": 4, "asha": ASHA, "search": "optuna", "concurrent": 1},
    "population": {"trials": 4, "population": {"every_epochs": 2}, "concurrent": 2},
}


def figures(result: SweepResult) -> dict[str, Any]:
    """All that a sweep decided and found, without times."""
    journal = Journal(result.folder.address("journal.jsonl"))
    return {
        "proposed": [
            (n, next(e for e in journal.entries if e.trial == n).overrides) for n in journal.proposed()
        ],
        "ended": {n: entry.ended for n, entry in sorted(journal.ended().items())},
        "scores": sorted((e.trial, e.epoch, e.score) for e in journal.entries if e.score is not None),
        "took over": [
            (e.trial, e.epoch, e.donor, e.overrides) for e in journal.entries if e.donor is not None
        ],
        "winner": (result.winner.number, result.winner.score),
        "checkpoints": [load_checkpoint(result.checkpoint(t))["best"] for t in result.trials],
    }


def killed(file: Path, lines_there: Callable[[], int], lines: int) -> None:
    """Start the driver, and kill it once the sweep's journal has so many lines."""
    with file.with_suffix(".log").open("a") as log:
        driver = subprocess.Popen(
            [sys.executable, "-m", "tests.tuning.killed_driver", str(file)], stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 400
        while lines_there() < lines:
            assert driver.poll() is None, file.with_suffix(".log").read_text()
            assert time.monotonic() < deadline, file.with_suffix(".log").read_text()
            time.sleep(0.05)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL


def n_lines(sweeps: Path, name: str) -> int:
    return sum(path.read_text().count("\n") for path in sweeps.glob(f"{name}-*/journal.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", SWEEPS)
def test_a_sweep_that_is_killed_equals_one_left_alone(
    tmp_path: Path, ray_session: None, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    settings = synthetic_experiment(
        tmp_path / "home", "--model", "dynamics", "--training.epochs", str(EPOCHS[kind]), n=90
    )
    space = RATE | DECAY if kind == "population" else RATE
    tracking = Tracking(mlflow_uri, "killed")
    whole = run_sweep(
        settings, SweepConfig(name=f"whole-{kind}", space=space, **SWEEPS[kind]), tracking, {}, print
    )
    expected = figures(whole)

    sweep = SweepConfig(name=f"killed-{kind}", space=space, **SWEEPS[kind])
    file = tmp_path / "driver"
    address = ray.get_runtime_context().gcs_address
    file.write_bytes(pickle.dumps((settings, sweep, mlflow_uri, address)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    lines = partial(n_lines, tmp_path / "home" / "sweeps", sweep.name)
    all_lines = len(Journal(whole.folder.address("journal.jsonl")).entries)
    for share in KILLS[kind]:
        killed(file, lines, round(share * all_lines))
        assert lines() < all_lines
    result = run_sweep(settings, sweep, tracking, {}, print)
    assert result.continued
    assert figures(result) == expected

    if kind != "population":
        assert "stopped" in expected["ended"].values()
    else:
        assert expected["took over"]
    client = MlflowClient(mlflow_uri)
    runs = client.search_runs([tracking.experiment_id], f"tags.`mlflow.parentRunId` = '{result.run_id}'")
    keys = [run.data.tags["etude.key"] for run in runs]
    assert sorted(keys) == [
        f"{result.folder.identity()}/{number:03d}" for number in sorted(expected["ended"])
    ]
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}
    for run in runs:
        number = int(run.data.tags["etude.key"].rpartition("/")[2])
        told = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, SCORE)]
        assert sorted(told) == [(epoch, score) for n, epoch, score in expected["scores"] if n == number]
        rate = dict(expected["proposed"])[number]["training.learning_rate"]
        assert float(run.data.params["training.learning_rate"]) == rate
        taken = {key: tag for key, tag in run.data.tags.items() if key.startswith("etude.took_over.")}
        assert taken.keys() == {f"etude.took_over.{at}" for n, at, *_ in expected["took over"] if n == number}


@pytest.mark.slow
def test_a_population_that_never_takes_over_is_plain_training(
    tmp_path: Path, ray_session: None, mlflow_uri: str
) -> None:
    settings = synthetic_experiment(tmp_path / "home", "--model", "dynamics", "--training.epochs", "4", n=90)
    tracking = Tracking(mlflow_uri, "killed")
    found = []
    for name, more in (
        ("plain", {"asha": {"grace_epochs": 4}}),
        ("members", {"population": {"every_epochs": 2, "quantile": 0.0}}),
    ):
        sweep = SweepConfig(name=name, space=RATE, trials=1, **more)
        found.append(figures(run_sweep(settings, sweep, tracking, {}, print)))
    assert found[0] == found[1]


@pytest.mark.slow
def test_a_sweep_on_a_full_disk_goes_on_once_there_is_room(
    tmp_path: Path, ray_session: None, mlflow_uri: str
) -> None:
    """It says so instead of writing all its trials off."""
    plain = synthetic_experiment(tmp_path / "home", "--model", "dynamics", "--training.epochs", "2", n=60)
    full = tmp_path / "full"
    settings = Mortal(**plain.model_dump(), deaths=tmp_path / "deaths", full=full)
    sweep = SweepConfig(name="full", space=RATE, trials=2, concurrent=1, max_failures=0)
    tracking = Tracking(mlflow_uri, "full")
    full.touch()
    with pytest.raises(OSError, match="No space left on device"):
        run_sweep(settings, sweep, tracking, {}, print)
    full.unlink()
    result = run_sweep(settings, sweep, tracking, {}, print)
    assert result.continued
    assert [trial.ended for trial in result.trials] == ["finished", "finished"]
