"""Workers that die in the middle of a run change no loss of it."""

from pathlib import Path

import pytest
import torch
import torch.distributed
from mlflow.tracking import MlflowClient
from torch.nn.parallel import DistributedDataParallel

from etude.config import load
from etude.errors import UserError
from etude.experiments.emotion import EmotionExperiment
from etude.storage.files import Files
from etude.tracking.mlflow import Tracking
from etude.training.checkpoint import load_latest
from etude.training.epoch import Worker
from etude.training.ray_train import WorkersConfig, train_on_workers
from etude.training.run import Run, train_run
from etude.workflow import TrainSettings
from tests.support.emotion import synthetic_experiment
from tests.support.mortal import Mortal
from tests.support.ranks import on_two_ranks
from tests.support.threads import one_thread


class TrainEmotion(TrainSettings, EmotionExperiment):
    """As the job has it."""


WORDS = (
    "--model",
    "dynamics",
    "--student.dropout",
    "0",
    "--training.epochs",
    "3",
    "--training.batch_size",
    "16",
)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> EmotionExperiment:
    return synthetic_experiment(tmp_path_factory.mktemp("mortal"), *WORDS, n=60)


def alone(experiment: EmotionExperiment, folder: Path) -> list[float]:
    """The losses of a run in this process, which nothing disturbs."""
    with one_thread():
        train_run(Run("alone", experiment, Files(folder)), Worker(), lambda metrics, checkpoint: None)
    return losses(folder)


def _beside_another(rank: int, experiment: EmotionExperiment, folder: Path) -> torch.Tensor:
    worker = Worker(rank, 2, wrap=DistributedDataParallel)
    train_run(Run("pair", experiment, Files(folder)), worker, lambda metrics, checkpoint: None)
    torch.distributed.barrier()
    return torch.tensor(losses(folder), dtype=torch.float64)


def as_a_pair(experiment: EmotionExperiment, folder: Path) -> list[float]:
    """The same of two processes that train together."""
    folder.mkdir()
    first, _ = on_two_ranks(_beside_another, folder, experiment, folder / "run")
    return list(map(float, first))


def losses(folder: Path) -> list[float]:
    state = load_latest(folder)
    assert state is not None
    return [epoch["train/loss"] for epoch in state["history"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "dies_at"),
    [(1, ((1, 5, 0), (2, 0, 0))), (2, ((1, 5, 1), (2, 0, 0)))],
    ids=["one worker", "one of two workers"],
)
def test_a_killed_worker_changes_no_loss(
    experiment: EmotionExperiment, ray_session: None, mlflow_uri: str, tmp_path: Path,
    workers: int, dies_at: tuple[tuple[int, int, int], ...],
) -> None:  # fmt: skip
    """Once in the middle of an epoch and once on the boundary between two."""
    mortal = Mortal(**experiment.model_dump(), deaths=tmp_path / "deaths", dies_at=dies_at)
    tracking = Tracking(mlflow_uri, "failures")
    run = Run("mortal", mortal, Files(tmp_path / "run"), tracking.run(str(tmp_path), "mortal"))
    train_on_workers([run], WorkersConfig(workers=workers), tracking)
    assert {path.name for path in mortal.deaths.iterdir()} == {"-".join(map(str, at)) for at in dies_at}
    undisturbed = (alone if workers == 1 else as_a_pair)(experiment, tmp_path / "undisturbed")
    assert losses(Path(run.folder.root)) == pytest.approx(undisturbed, abs=1e-7)
    history = MlflowClient(mlflow_uri).get_metric_history(run.run_id, "train/loss")
    assert sorted(point.step for point in history) == [1, 2, 3]


@pytest.mark.slow
def test_what_its_user_has_to_mend_is_tried_once(
    experiment: EmotionExperiment, ray_session: None, mlflow_uri: str, tmp_path: Path
) -> None:
    rate = {"training": experiment.training.model_copy(update={"learning_rate": 1e30, "warmup_epochs": 0})}
    tracking = Tracking(mlflow_uri, "failures")
    run = Run(
        "mortal",
        experiment.model_copy(update=rate),
        Files(tmp_path / "run"),
        tracking.run(str(tmp_path), "mortal"),
    )
    with pytest.raises(UserError, match=r"the (loss|gradient's norm) became .*lower training.learning_rate"):
        train_on_workers([run], WorkersConfig(max_failures=3), tracking)


@pytest.mark.slow
def test_a_run_on_a_full_disk_says_so_and_goes_on_once_there_is_room(
    experiment: EmotionExperiment, ray_session: None, mlflow_uri: str, tmp_path: Path
) -> None:
    full = tmp_path / "full"
    settings = Mortal(**experiment.model_dump(), deaths=tmp_path / "deaths", full=full)
    tracking = Tracking(mlflow_uri, "failures")
    run = Run("full", settings, Files(tmp_path / "run"), tracking.run(str(tmp_path), "full"))
    full.touch()
    with pytest.raises(OSError, match="No space left on device"):
        train_on_workers([run], WorkersConfig(max_failures=3), tracking)
    full.unlink()
    train_on_workers([run], WorkersConfig(), tracking)
    undisturbed = alone(experiment, tmp_path / "alone")
    assert losses(Path(run.folder.root)) == pytest.approx(undisturbed, abs=1e-7)


def test_a_batch_must_suit_as_many_workers_as_there_may_be(
    experiment: EmotionExperiment, ray_session: None, mlflow_uri: str, tmp_path: Path
) -> None:
    tracking = Tracking(mlflow_uri, "failures")
    with pytest.raises(UserError, match="batch_size 16 cannot be shared by 3 workers"):
        train_on_workers(
            [Run("x", experiment, Files(tmp_path), "x")], WorkersConfig(workers=4, min_workers=2), tracking
        )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--workers.min_workers", "3", "--workers.workers", "2"], "min_workers 3 is above workers 2"),
        (["--workers.min_workers", "1", "--workers.max_failures", "0"], "needs max_failures above 0"),
    ],
)
def test_workers_that_cannot_be_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(TrainEmotion, words)
