"""A run as every process trains it: what it shows, and where."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from etude.storage.files import Files
from etude.training.epoch import Worker
from etude.training.loop import SCORE
from etude.training.run import Run, train_run
from tests.support.emotion import synthetic_experiment


def test_tensorboard_shows_every_epoch_once_though_the_last_is_told_again(tmp_path: Path) -> None:
    board = tmp_path / "board"
    words = ["--model", "dynamics", "--training.epochs", "4", "--tracking.tensorboard", str(board)]
    settings = synthetic_experiment(tmp_path / "home", *words, n=60)
    folder = Files(tmp_path / "run")
    told: list[int] = []
    for run in (
        Run("one", settings, folder, until=2),
        Run("one", settings, folder, replay_after=1, shown=2),
    ):
        train_run(run, Worker(), lambda metrics, checkpoint: told.append(int(metrics["epoch"])))
    assert told == [1, 2, 2, 3, 4]
    events = EventAccumulator(str(board / "one"))
    events.Reload()
    assert [point.step for point in events.Scalars(SCORE)] == [1, 2, 3, 4]
