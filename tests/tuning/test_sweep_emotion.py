"""A sweep's trial, Ray Train and the plain loop are the same training."""

from pathlib import Path
from typing import Any

import pytest

from etude.experiments.emotion import EmotionExperiment
from etude.storage.files import Files, split
from etude.tracking.mlflow import Tracking
from etude.training.checkpoint import load_checkpoint, load_latest
from etude.training.loop import train
from etude.training.ray_train import WorkersConfig, train_on_workers
from etude.training.run import Run
from etude.tuning.space import Distribution
from etude.tuning.sweep import run_sweep
from etude.tuning.trial import SweepConfig
from tests.support.emotion import synthetic_experiment
from tests.support.threads import one_thread

VARYING = {"seconds", "seconds_waiting", "at_ms"}


def history(folder: Path) -> list[dict[str, Any]]:
    state = load_latest(folder)
    assert state is not None
    return [
        {name: value for name, value in epoch.items() if name not in VARYING} for epoch in state["history"]
    ]


@pytest.mark.slow
def test_sweep_and_plain_training_reach_the_same_figure(
    tmp_path: Path, ray_session: None, mlflow_uri: str
) -> None:
    base = synthetic_experiment(tmp_path / "home", "--model", "dynamics", "--training.epochs", "5", n=120)
    rate = {"training.learning_rate": Distribution(choice=[2e-3])}
    tracking = Tracking(mlflow_uri, "emotion-sweep")
    config = SweepConfig(name="same", space=rate, trials=1, max_failures=0)
    result = run_sweep(base, config, tracking, {}, lambda line: None)
    assert result.winner.score is not None
    settings = result.winner.settings
    assert isinstance(settings, EmotionExperiment)
    assert settings.training.learning_rate == 2e-3

    study = settings.open()
    system, folder = study.system(settings.seed), tmp_path / "plain"
    with one_thread():
        train(
            system, study, settings.training, seed=settings.seed, folder=folder,
            report=lambda metrics, path: None, identity=study.identity(),
        )  # fmt: skip
    run = Run("ray", settings, Files(tmp_path / "ray"), tracking.run("ray-train", "ray-train"))
    train_on_workers([run], WorkersConfig(workers=1), tracking)

    plain = history(folder)
    assert max(epoch["score"] for epoch in plain) == pytest.approx(result.winner.score, abs=1e-6)
    for other in (split(result.checkpoint(result.winner))[0], run.folder):
        for one, two in zip(plain, history(other), strict=True):
            assert one == pytest.approx(two, abs=1e-5)
    assert load_checkpoint(run.best)["epoch"] == max(plain, key=lambda epoch: epoch["score"])["epoch"]
