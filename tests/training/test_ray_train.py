"""Through Ray Train a student is the one that the plain loop makes, on one worker or two."""

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from etude.errors import UserError
from etude.experiments.audio import AudioExperiment
from etude.tracking.mlflow import Tracking
from etude.training.checkpoint import load_checkpoint
from etude.training.loop import train
from etude.training.ray_train import WorkersConfig, train_on_workers


@pytest.fixture(scope="module")
def settings(demo: AudioExperiment) -> AudioExperiment:
    small = {
        "student": {"name": "convnet", "width": 0.1, "dropout": 0.0, "frame_stride": 4},
        "training": {"epochs": 2, "batch_size": 4},
        "sampling": {"segments_per_track": 2},
    }
    return AudioExperiment(**demo.model_dump() | small)


def losses(path: Path) -> list[float]:
    return [epoch["train/loss"] for epoch in load_checkpoint(path)["history"]]


def through_ray(
    settings: AudioExperiment, workers: int, folder: Path, uri: str, name: str
) -> tuple[list[float], str]:
    tracking = Tracking(uri, "ray-train-tests")
    run_id = tracking.run(name, name)
    best = train_on_workers(settings, WorkersConfig(workers=workers), folder, tracking, run_id)
    assert best.exists()
    return losses(folder / "epoch-0002.pt"), run_id


@pytest.mark.slow
def test_one_worker_gives_the_plain_loops_losses(
    settings: AudioExperiment, mlflow_uri: str, tmp_path: Path
) -> None:
    study = settings.open()
    train(
        study.system(settings.seed),
        study,
        settings.training,
        seed=settings.seed,
        folder=tmp_path / "plain",
        report=lambda metrics, path: None,
        identity=study.identity(),
    )
    found, run_id = through_ray(settings, 1, tmp_path / "ray", mlflow_uri, "one")
    assert found == pytest.approx(losses(tmp_path / "plain" / "epoch-0002.pt"), rel=1e-4)
    history = MlflowClient(mlflow_uri).get_metric_history(run_id, "train/loss")
    assert [point.step for point in history] == [1, 2]


@pytest.mark.slow
def test_two_workers_share_every_batch(settings: AudioExperiment, mlflow_uri: str, tmp_path: Path) -> None:
    found, _ = through_ray(settings, 2, tmp_path / "two", mlflow_uri, "two")
    assert len(found) == 2
    assert all(0 < loss < 1.5 for loss in found)


def test_what_cannot_be_shared_is_refused(settings: AudioExperiment, mlflow_uri: str, tmp_path: Path) -> None:
    tracking = Tracking(mlflow_uri, "ray-train-tests")
    for workers, said in ((3, "cannot be shared by 3 workers"), (4, "need 4 CPUs, the cluster has 2")):
        with pytest.raises(UserError, match=said):
            train_on_workers(settings, WorkersConfig(workers=workers), tmp_path, tracking, "y")
