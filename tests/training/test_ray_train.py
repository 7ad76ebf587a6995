"""Through Ray Train a student is the one that the plain loop makes, on one worker or two."""

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from etude.errors import UserError
from etude.experiments.audio import AudioExperiment
from etude.storage.files import Files
from etude.tracking.mlflow import Tracking
from etude.training.checkpoint import load_checkpoint
from etude.training.loop import train
from etude.training.plan import TrainingConfig
from etude.training.ray_train import WorkersConfig, check_shares, train_on_workers
from etude.training.run import Run
from tests.support.threads import one_thread


@pytest.fixture(scope="module")
def settings(demo: AudioExperiment) -> AudioExperiment:
    small = {
        "student": {"name": "convnet", "width": 0.1, "dropout": 0.0, "frame_stride": 4},
        "training": {"epochs": 2, "batch_size": 4},
        "sampling": {"segments_per_track": 2},
    }
    return AudioExperiment(**demo.model_dump() | small)


def losses(path: str | Path) -> list[float]:
    return [epoch["train/loss"] for epoch in load_checkpoint(path)["history"]]


def through_ray(
    settings: AudioExperiment, workers: int, folder: Path, uri: str, name: str
) -> tuple[list[float], str]:
    tracking = Tracking(uri, "ray-train-tests")
    run = Run(name, settings, Files(folder), tracking.run(name, name))
    train_on_workers([run], WorkersConfig(workers=workers), tracking)
    assert run.folder.exists("best.pt")
    return losses(folder / "epoch-0002.pt"), run.run_id


def in_plain_loop(settings: AudioExperiment, folder: Path) -> list[float]:
    study = settings.open()
    with one_thread():
        train(
            study.system(settings.seed),
            study,
            settings.training,
            seed=settings.seed,
            folder=folder,
            report=lambda metrics, path: None,
            identity=study.identity(),
        )
    return losses(folder / "epoch-0002.pt")


@pytest.mark.slow
def test_one_worker_gives_the_plain_loops_losses(
    settings: AudioExperiment, mlflow_uri: str, tmp_path: Path
) -> None:
    """Two students, one after the other on the same worker, are each the one that the loop makes alone."""
    tracking = Tracking(mlflow_uri, "ray-train-tests")
    runs = [
        Run(
            f"one-{one.seed}",
            one,
            Files(tmp_path / f"ray-{one.seed}"),
            tracking.run(f"one-{one.seed}", "one"),
        )
        for one in (settings, settings.model_copy(update={"seed": 1}))
    ]
    train_on_workers(runs, WorkersConfig(workers=1), tracking)
    for run in runs:
        plain = in_plain_loop(run.settings, tmp_path / f"plain-{run.settings.seed}")
        assert losses(run.folder.address("epoch-0002.pt")) == pytest.approx(plain, rel=1e-5)
        history = MlflowClient(mlflow_uri).get_metric_history(run.run_id, "train/loss")
        assert [point.step for point in history] == [1, 2]


@pytest.mark.slow
def test_two_workers_share_every_batch(settings: AudioExperiment, mlflow_uri: str, tmp_path: Path) -> None:
    found, _ = through_ray(settings, 2, tmp_path / "two", mlflow_uri, "two")
    assert found == pytest.approx(in_plain_loop(settings, tmp_path / "plain"), abs=1e-5)


def test_what_cannot_be_shared_is_refused(settings: AudioExperiment, mlflow_uri: str, tmp_path: Path) -> None:
    tracking = Tracking(mlflow_uri, "ray-train-tests")
    for workers, said in (
        (3, "cannot be shared by 3 workers"),
        (4, "4 workers .* do not fit, the cluster has room for 2"),
    ):
        with pytest.raises(UserError, match=said):
            train_on_workers(
                [Run("y", settings, Files(tmp_path), "y")], WorkersConfig(workers=workers), tracking
            )


def test_parts_of_a_batch_are_shared_by_any_number_of_workers_that_there_may_be() -> None:
    plan = TrainingConfig(batch_size=12, accumulate=2)
    check_shares(plan, WorkersConfig(workers=3, min_workers=1))
    with pytest.raises(UserError, match="batch_size 12 in 2 parts cannot be shared by 4 workers"):
        check_shares(plan, WorkersConfig(workers=4))
    with pytest.raises(UserError, match="batch_size 12 in 4 parts cannot be shared by 2 workers"):
        check_shares(TrainingConfig(batch_size=12, accumulate=4), WorkersConfig(workers=3, min_workers=1))
