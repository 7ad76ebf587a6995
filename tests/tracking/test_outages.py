"""MLflow away under real workers and sweeps: all points arrive once, also after a kill."""

import contextlib
import gc
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.tracking import MlflowClient

from etude.errors import UserError
from etude.experiments.emotion import EmotionExperiment
from etude.storage.files import Files
from etude.tracking.mlflow import Tracking
from etude.training.checkpoint import load_latest, newest_first, own_history
from etude.training.ray_train import WorkersConfig, train_on_workers
from etude.training.run import Run
from etude.tuning.follow import MLFLOW_STATUS
from etude.tuning.journal import Journal
from etude.tuning.space import Distribution
from etude.tuning.sweep import SweepResult, run_sweep, trial_folder
from etude.tuning.trial import SweepConfig
from tests.support.emotion import synthetic_experiment
from tests.support.unsteady import Unsteady, unsteady, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def server(mlflow_uri: str) -> Iterator[Unsteady]:
    with unsteady(mlflow_uri) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> EmotionExperiment:
    home = tmp_path_factory.mktemp("outages")
    return synthetic_experiment(home, "--model", "dynamics", "--training.epochs", "12", n=120)


def own(folder: Path) -> list[dict[str, Any]]:
    state = load_latest(folder)
    assert state is not None
    return own_history(state)


def has_once(uri: str, run_id: str, history: list[dict[str, Any]]) -> bool:
    """Whether a run has every figure of every epoch as the checkpoint has it, and nothing twice."""
    client = MlflowClient(uri)
    return all(
        sorted((p.step, p.value, p.timestamp) for p in client.get_metric_history(run_id, name))
        == [(entry["epoch"], entry[name], entry["at_ms"]) for entry in history]
        for name in history[0].keys() - {"epoch", "at_ms"}
    )


def test_a_killed_worker_takes_no_figures_with_it(
    settings: EmotionExperiment, ray_session: None, server: Unsteady, mlflow_uri: str, tmp_path: Path
) -> None:
    tracking = Tracking(server.url, "outages")
    short = settings.model_copy(update={"training": settings.training.model_copy(update={"epochs": 4})})
    run = Run("killed", short, Files(tmp_path / "killed"), tracking.run("killed", "killed"))
    server.mode = "hold"
    killed: list[psutil.Process] = []

    def kill() -> None:
        wait_until(lambda: len(newest_first(run.folder)) == 2, "no second epoch was trained")
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # another of Ray's that ended meanwhile
                if "RayTrainWorker" in " ".join(process.cmdline()):
                    process.send_signal(signal.SIGKILL)
                    killed.append(process)
        server.mode = "pass"

    killer = threading.Thread(target=kill)
    killer.start()
    train_on_workers([run], WorkersConfig(), tracking)
    killer.join()
    assert len(killed) == 1
    assert not killed[0].is_running()
    assert server.counts["hold"] > 0
    assert len(own(run.folder)) == 4
    assert has_once(mlflow_uri, run.run_id, own(run.folder))


def sweep(name: str) -> SweepConfig:
    space = {"training.learning_rate": Distribution(loguniform=(1e-4, 5e-3))}
    return SweepConfig(name=name, space=space, trials=4, max_failures=0)


def check(result: SweepResult, uri: str) -> None:
    """Every trial's run, and no other, has what its trial reported and how it ended."""
    client = MlflowClient(uri)
    (experiment,) = client.search_experiments(filter_string="name = 'outages'")
    runs = client.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{result.run_id}'", max_results=100
    )
    assert {run.info.run_id: run.info.status for run in runs} == {
        result.trial_runs[trial.number]: MLFLOW_STATUS[trial.ended] for trial in result.trials
    }
    assert len(runs) == 4
    for trial in result.trials:
        history = own(trial_folder(result.folder, trial.number))[: trial.epochs]
        assert len(history) == trial.epochs
        assert has_once(uri, result.trial_runs[trial.number], history)
        params = client.get_run(result.trial_runs[trial.number]).data.params
        assert params["training.learning_rate"] == str(trial.overrides["training.learning_rate"])


def in_background(settings: EmotionExperiment, name: str, server: Unsteady, *, comes_back: bool) -> Any:
    """Takes the server away once a trial has reported, until all but one have ended, or for good."""

    def work() -> None:
        sweeps = settings.home / "sweeps"
        wait_until(lambda: bool(list(sweeps.glob(f"{name}-*/journal.jsonl"))), "nothing was reported", 400)
        server.mode = "away"
        (path,) = sweeps.glob(f"{name}-*/journal.jsonl")
        wait_until(lambda: len(Journal(path).ended()) >= 3, "no trials ended", 400)
        wait_until(lambda: server.counts["away"] > 0, "the server has refused nothing")
        if comes_back:
            server.mode = "pass"

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_sweep_waits_for_no_server(
    settings: EmotionExperiment, ray_session: None, server: Unsteady, mlflow_uri: str
) -> None:
    outage = in_background(settings, "back", server, comes_back=True)
    result = run_sweep(settings, sweep("back"), Tracking(server.url, "outages"), {}, lambda line: None)
    outage.join()
    assert server.counts["away"] > 0
    check(result, mlflow_uri)


def test_the_same_command_delivers_what_a_sweep_could_not(
    settings: EmotionExperiment, ray_session: None, server: Unsteady, mlflow_uri: str
) -> None:
    outage = in_background(settings, "gone", server, comes_back=False)
    impatient = Tracking(server.url, "outages", patience_s=1)
    with pytest.raises(UserError, match=r"not taken all .*nothing is lost.*give the same command again"):
        run_sweep(settings, sweep("gone"), impatient, {}, lambda line: None)
    outage.join()
    assert server.counts["away"] > 0
    (path,) = (settings.home / "sweeps").glob("gone-*/journal.jsonl")
    assert len(Journal(path).ended()) == 4  # no trial has suffered
    wait_until(lambda: impatient.sender.waiting > 0, "everything was delivered")
    gc.collect()  # the sweep's lock goes with its process

    with unsteady(mlflow_uri) as healthy:  # what the first driver still has to send would arrive nowhere
        result = run_sweep(settings, sweep("gone"), Tracking(healthy.url, "outages"), {}, lambda line: None)
    assert result.continued
    check(result, mlflow_uri)
    client = MlflowClient(mlflow_uri)
    for trial in result.trials:
        last = own(trial_folder(result.folder, trial.number))[trial.epochs - 1]
        assert client.get_run(result.trial_runs[trial.number]).info.end_time == last["at_ms"]
