"""The loop learns, and a run that was cut off gives the losses of one that was not."""

import contextlib
import math
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.audio.augment import AugmentConfig
from etude.audio.recipe import FeatureRecipe
from etude.data.batches import Splits
from etude.errors import UserError
from etude.objectives.distillation import DistillationWeights, ObjectiveConfig
from etude.students import StudentConfig
from etude.systems.student_clap import StudentClap
from etude.training.checkpoint import load_checkpoint, load_latest, save_checkpoint
from etude.training.loop import TrainingConfig, train
from tests.support.library import DIM, made_up_splits

CONFIG = TrainingConfig(epochs=4, batch_size=4, segments_per_track=1, learning_rate=3e-3, warmup_epochs=0.5)
IDENTITY = {"recipe": "r"}


class Stopped(Exception):  # noqa: N818
    """Ends a run as a lost process would, right after an epoch was reported."""


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    return made_up_splits(tmp_path_factory.mktemp("store"))


def system(name: str = "convnet") -> StudentClap:
    torch.manual_seed(0)
    return StudentClap(
        StudentConfig(name=name, width=0.1, dropout=0.2),
        ObjectiveConfig(weights=DistillationWeights(cosine=1, mse=0.5, similarity=0.5)),
        AugmentConfig(gain_db=3, freq_masks=1, time_masks=1, mixup_alpha=0.3, roll_frames=5),
        FeatureRecipe(),
        dim=DIM,
        normalized=False,
    )


def run(
    splits: Splits, folder: Path, config: TrainingConfig = CONFIG, stop_after: int = 99, name: str = "convnet"
) -> list[dict[str, float]]:
    reports: list[dict[str, float]] = []

    def report(metrics: Mapping[str, float], checkpoint: Path) -> None:
        assert checkpoint.exists()
        reports.append({key: value for key, value in metrics.items() if key != "seconds"})
        if metrics["epoch"] == stop_after:
            raise Stopped

    with contextlib.suppress(Stopped):
        train(system(name), splits, config, seed=3, folder=folder, report=report, identity=IDENTITY)
    return reports


@pytest.fixture(scope="module")
def whole(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    return run(splits, tmp_path_factory.mktemp("whole"))


def same(a: list[dict[str, float]], b: list[dict[str, float]]) -> bool:
    return repr(a) == repr(b)  # exact, and a nan is equal to itself


@settings(max_examples=4, deadline=None)
@given(stops=st.sets(st.integers(1, 3), min_size=1))
def test_first_part_and_rest_are_the_whole(
    splits: Splits, whole: list[dict[str, float]], tmp_path_factory: pytest.TempPathFactory, stops: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    reports = [entry for stop in [*sorted(stops), 99] for entry in run(splits, folder, stop_after=stop)]
    assert same(reports, whole)


def test_a_finished_run_has_nothing_left_to_do(splits: Splits, tmp_path: Path) -> None:
    run(splits, tmp_path)
    assert run(splits, tmp_path) == []


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_it_learns(splits: Splits, tmp_path: Path, schedule: str) -> None:
    config = TrainingConfig(
        epochs=12, batch_size=4, segments_per_track=2, learning_rate=5e-3, schedule=schedule
    )
    reports = run(splits, tmp_path, config)
    assert reports[-1]["train/cosine"] < 0.7 * reports[0]["train/cosine"]
    assert max(r["validation/cosine"] for r in reports) > reports[0]["validation/cosine"]
    best = load_checkpoint(tmp_path / "best.pt")
    assert best["best"] == max(r["validation/skill"] for r in reports)


def test_a_truncated_checkpoint_falls_back_to_the_one_before(
    splits: Splits, whole: list[dict[str, float]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(splits, tmp_path, stop_after=3)
    newest = tmp_path / "epoch-0003.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    assert same(run(splits, tmp_path), whole[2:])
    assert "falling back" in caplog.text


def test_what_was_reported_to_nobody_is_reported_again(splits: Splits, tmp_path: Path) -> None:
    run(splits, tmp_path, stop_after=3)
    epochs = []
    train(
        system(), splits, CONFIG, seed=3, folder=tmp_path, identity=IDENTITY, replay_after=1,
        report=lambda metrics, checkpoint: epochs.append(metrics["epoch"]),
    )  # fmt: skip
    assert epochs == [2, 3, 4]


def test_a_checkpoint_of_something_else_is_refused(splits: Splits, tmp_path: Path) -> None:
    run(splits, tmp_path, stop_after=1)
    with pytest.raises(UserError, match="made with recipe r, this run has other"):
        train(
            system(), splits, CONFIG, seed=3, folder=tmp_path, identity={"recipe": "other"},
            report=lambda metrics, checkpoint: None,
        )  # fmt: skip


def test_a_loss_that_is_no_number_ends_the_run_with_advice(splits: Splits, tmp_path: Path) -> None:
    broken = system()
    with torch.no_grad():
        next(iter(broken.student.parameters())).fill_(math.nan)
    with pytest.raises(UserError, match=r"loss became nan in epoch 1.*learning_rate"):
        train(
            broken, splits, CONFIG, seed=3, folder=tmp_path, identity=IDENTITY,
            report=lambda metrics, checkpoint: None,
        )  # fmt: skip


def test_only_two_checkpoints_and_the_best_are_kept(tmp_path: Path) -> None:
    for epoch in range(1, 6):
        save_checkpoint(tmp_path, epoch, {"epoch": epoch}, best=epoch == 2)
    assert {path.name for path in tmp_path.iterdir()} == {"epoch-0004.pt", "epoch-0005.pt", "best.pt"}
    assert load_checkpoint(tmp_path / "best.pt") == {"epoch": 2}


def test_a_checkpoint_runs_no_code_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "evil": Path("x")}, tmp_path / "epoch-0001.pt")
    assert load_latest(tmp_path) is None


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "never made") is None


def test_a_kill_between_the_two_files_loses_no_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace
    done: list[Path] = []

    def killed_after_one(source: Path, target: Path) -> None:
        if done:
            raise Stopped
        replace(source, target)
        done.append(Path(target))

    monkeypatch.setattr(os, "replace", killed_after_one)
    with contextlib.suppress(Stopped):
        save_checkpoint(tmp_path, 1, {"epoch": 1}, best=True)
    assert [path.name for path in done] == ["best.pt"]
    assert load_latest(tmp_path) is None
