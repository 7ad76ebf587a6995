"""The loop learns, and a run that was cut off gives the losses of one that was not."""

import contextlib
import errno
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.audio.augment import AugmentConfig
from etude.audio.recipe import FeatureRecipe
from etude.data.batches import Batch, Dataset, Splits
from etude.data.sampling import SamplingConfig, TrainingSegments
from etude.errors import StorageError, UserError
from etude.objectives.distillation import DistillationWeights, ObjectiveConfig
from etude.objectives.strategies import Strategy
from etude.storage.files import Files, Place, split
from etude.students import StudentConfig
from etude.systems.student_clap import StudentClap
from etude.training.checkpoint import load_checkpoint, load_latest, save_checkpoint
from etude.training.loop import train
from etude.training.plan import TrainingConfig
from tests.support.library import DIM, made_up_splits
from tests.support.s3_server import address, s3_faults

CONFIG = TrainingConfig(epochs=3, stage2_epochs=2, batch_size=4, learning_rate=3e-3, warmup_epochs=0.5)
IDENTITY = {"recipe": "r"}


class Stopped(Exception):  # noqa: N818
    """Ends a run as a lost process would, right after an epoch was reported."""


def raises(error: Exception) -> Any:
    raise error


@dataclass(frozen=True)
class Library:
    """What the loop asks of data."""

    training: TrainingSegments
    validation: Dataset


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    return made_up_splits(tmp_path_factory.mktemp("store"))


def library(splits: Splits, strategy: Strategy = "segments", per_track: int = 1) -> Library:
    sampling = SamplingConfig(strategy=strategy, segments_per_track=per_track)
    return Library(TrainingSegments(splits.train, sampling), splits.validation)


@pytest.fixture(scope="module")
def data(splits: Splits) -> Library:
    return library(splits)


def system(strategy: Strategy = "segments") -> StudentClap:
    torch.manual_seed(0)
    return StudentClap(
        StudentConfig(name="convnet", width=0.1, dropout=0.2),
        ObjectiveConfig(
            weights=DistillationWeights(cosine=1, mse=0.5, similarity=0.5), logit_scale="learned"
        ),
        AugmentConfig(gain_db=3, freq_masks=1, time_masks=1, mixup_alpha=0.3, roll_frames=5),
        FeatureRecipe(),
        dim=DIM,
        normalized=False,
        strategy=strategy,
    )


def timeless(metrics: Mapping[str, float]) -> dict[str, float]:
    """The figures of an epoch but for when it was, and how long it took."""
    return {k: v for k, v in metrics.items() if not k.startswith("seconds") and k != "at_ms"}


def run(
    data: Library,
    folder: Place,
    config: TrainingConfig = CONFIG,
    stop_after: int = 99,
    chosen: StudentClap | None = None,
) -> list[dict[str, float]]:
    reports: list[dict[str, float]] = []

    def report(metrics: Mapping[str, float], checkpoint: str) -> None:
        files, name = split(checkpoint)
        assert files.exists(name)
        reports.append(timeless(metrics))
        if metrics["epoch"] == stop_after:
            raise Stopped

    with contextlib.suppress(Stopped):
        train(
            chosen or system(), data, config, seed=3, folder=folder, report=report, identity=IDENTITY,
            configuration={"student": {"name": "convnet"}},
        )  # fmt: skip
    return reports


@pytest.fixture(scope="module")
def whole(data: Library, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    return run(data, tmp_path_factory.mktemp("whole"))


def same(a: list[dict[str, float]], b: list[dict[str, float]]) -> bool:
    return repr(a) == repr(b)  # exact, and a nan is equal to itself


@settings(max_examples=4)
@given(stops=st.sets(st.integers(1, 4), min_size=1))
def test_first_part_and_rest_are_the_whole(
    data: Library, whole: list[dict[str, float]], tmp_path_factory: pytest.TempPathFactory, stops: set[int]
) -> None:
    """Also where a stage ends."""
    folder = tmp_path_factory.mktemp("parts")
    reports = [entry for stop in [*sorted(stops), 99] for entry in run(data, folder, stop_after=stop)]
    assert same(reports, whole)


def test_a_run_killed_within_an_epoch_loses_only_that(
    data: Library, whole: list[dict[str, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_batches, batch_of = 0, Dataset.batch

    def counted(self: Dataset, items: Sequence[tuple[int, int]]) -> Batch:
        nonlocal n_batches
        n_batches += 1
        if n_batches == 10:
            raise Stopped
        return batch_of(self, items)

    monkeypatch.setattr(Dataset, "batch", counted)
    first = run(data, tmp_path)
    monkeypatch.undo()
    assert 0 < len(first) < len(whole)
    assert same(first + run(data, tmp_path), whole)


def test_what_ends_after_an_epoch_goes_on_as_the_whole(
    data: Library, whole: list[dict[str, float]], tmp_path: Path
) -> None:
    reports: list[dict[str, float]] = []
    for until in (1, 3, 3, 4, None):  # stage 1 ends after 3
        train(
            system(), data, CONFIG, seed=3, folder=tmp_path, identity=IDENTITY, until=until,
            report=lambda metrics, _: reports.append(dict(metrics)),
        )  # fmt: skip
        assert len(reports) == (until or len(whole))
    assert same([timeless(one) for one in reports], whole)


def test_a_resumed_run_takes_the_weight_decay_that_it_is_given(data: Library, tmp_path: Path) -> None:
    for until, decay in ((1, 0.02), (2, 0.3)):
        config = CONFIG.model_copy(update={"weight_decay": decay})
        train(
            system(), data, config, seed=3, folder=tmp_path, identity=IDENTITY, until=until,
            report=lambda *_: None,
        )  # fmt: skip
        groups = load_checkpoint(tmp_path / f"epoch-{until:04d}.pt")["optimizer"]["param_groups"]
        assert {group["weight_decay"] for group in groups} == {0.0, decay}


def test_a_finished_run_has_nothing_left_to_do(data: Library, tmp_path: Path) -> None:
    run(data, tmp_path)
    assert run(data, tmp_path) == []


@pytest.mark.parametrize(
    ("schedule", "strategy"), [("cosine", "segments"), ("plateau", "both"), ("cosine", "average")]
)
def test_it_learns(splits: Splits, tmp_path: Path, schedule: str, strategy: Strategy) -> None:
    config = TrainingConfig(epochs=12, batch_size=4, learning_rate=5e-3, schedule=schedule)
    reports = run(library(splits, strategy, 2), tmp_path, config, chosen=system(strategy))
    assert reports[-1]["train/mse"] < 0.7 * reports[0]["train/mse"]
    assert max(r["validation/cosine"] for r in reports) > reports[0]["validation/cosine"]
    best = load_checkpoint(tmp_path / "best.pt")
    assert best["best"] == max(r["score"] for r in reports)
    assert best["config"] == {"student": {"name": "convnet"}}


def test_stage_2_moves_the_head_alone(data: Library, tmp_path: Path) -> None:
    run(data, tmp_path, stop_after=3)
    before = load_latest(tmp_path)
    run(data, tmp_path)
    after = load_latest(tmp_path)
    assert before is not None
    assert after is not None
    moved = {name for name, value in after["model"].items() if not torch.equal(value, before["model"][name])}
    assert moved
    assert all(name.startswith(("student.head.", "scale.")) for name in moved)  # no batch statistics either
    assert [entry["stage"] for entry in after["history"]] == [1, 1, 1, 2, 2]


def test_parts_of_a_batch_give_the_gradients_of_the_whole(splits: Splits, tmp_path: Path) -> None:
    """Where nothing depends on the other items: no mix-up or dropout, batch statistics frozen."""

    def losses(folder: Path, accumulate: int) -> list[float]:
        torch.manual_seed(0)
        chosen = StudentClap(
            StudentConfig(name="convnet", width=0.1, dropout=0.0), ObjectiveConfig(), AugmentConfig(),
            FeatureRecipe(), dim=DIM, normalized=False,
        )  # fmt: skip
        chosen.train_head_only()
        config = TrainingConfig(epochs=2, batch_size=4, accumulate=accumulate, learning_rate=5e-3)
        return [entry["train/loss"] for entry in run(library(splits), folder, config, chosen=chosen)]

    assert losses(tmp_path / "parts", 2) == pytest.approx(losses(tmp_path / "whole", 1), rel=1e-4)


def test_training_ends_early_when_nothing_improves(data: Library, tmp_path: Path) -> None:
    config = TrainingConfig(
        epochs=1, stage2_epochs=30, batch_size=4, stage2_learning_rate=1e-12, patience=2
    )  # what does not move cannot get better
    reports = run(data, tmp_path, config)
    scores = [entry["score"] for entry in reports if entry["stage"] == 2]
    assert len(scores) - 1 - scores.index(max(scores)) == 2
    assert len(scores) < 30
    assert run(data, tmp_path, config) == []


def test_a_run_goes_on_from_anothers_checkpoint(data: Library, tmp_path: Path) -> None:
    run(data, tmp_path / "old", TrainingConfig(epochs=2, batch_size=4, weight_decay=0.5))
    old = tmp_path / "old" / "epoch-0002.pt"
    kept, anew = (
        TrainingConfig(epochs=3, batch_size=4, weight_decay=0.1, start_from=old, reset=reset)
        for reset in ((), ("optimizer", "schedule", "logit_scale", "weight_decay"))
    )
    for name, config, decay in (("kept", kept, 0.5), ("anew", anew, 0.1)):
        reports = run(data, tmp_path / name, config)
        assert [entry["epoch"] for entry in reports] == [3]
        state = load_latest(tmp_path / name)
        assert state is not None
        assert len(state["history"]) == 3
        assert state["optimizer"]["param_groups"][0]["weight_decay"] == decay
        n_steps = next(iter(state["optimizer"]["state"].values()))["step"]
        assert n_steps == data.training.steps(4) * (3 if name == "kept" else 1)
        assert state["origin"] == (0 if name == "kept" else 2)
        assert (tmp_path / name / "best.pt").exists()
    with pytest.raises(UserError, match="was made with recipe r, this run has other: choose another"):
        train(
            system(), data, kept, seed=3, folder=tmp_path / "other", identity={"recipe": "other"},
            report=lambda metrics, checkpoint: None,
        )  # fmt: skip


def test_a_plan_that_cannot_be_is_refused() -> None:
    for wrong, said in (
        ({"batch_size": 9, "accumulate": 2}, "cannot be divided into 2 equal parts"),
        ({"reset": ("optimizer",)}, "reset needs start_from"),
    ):
        with pytest.raises(ValueError, match=said):
            TrainingConfig(**wrong)


def test_a_truncated_checkpoint_falls_back_to_the_one_before(
    data: Library, whole: list[dict[str, float]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(data, tmp_path, stop_after=3)
    newest = tmp_path / "epoch-0003.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    assert same(run(data, tmp_path), whole[2:])
    assert "falling back" in caplog.text


def test_on_s3_a_run_resumes_as_in_a_folder_through_faults(
    data: Library, whole: list[dict[str, float]], s3_port: int, pauses: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Some requests are refused, cut off or done without an answer; then the last checkpoint is cut short."""
    with s3_faults(s3_port, seed=1) as proxy:
        files = Files(address(proxy.port, "training/run"))
        proxy.share = 0.2
        first = run(data, files, stop_after=3)
        newest = files.read("epoch-0003.pt")
        assert newest is not None
        files.write("epoch-0003.pt", newest[:1000])
        assert same([*first[:2], *run(data, files)], whole)
        assert "falling back" in caplog.text
        assert proxy.counts.total() > 3, proxy.counts
        assert set(files.list("", "")) == {"best.pt", "epoch-0004.pt", "epoch-0005.pt"}


def test_a_checkpoint_that_is_out_of_reach_is_not_taken_for_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3_port: int
) -> None:
    for place, error, told in (
        (Files(tmp_path), PermissionError(errno.EACCES, "Permission denied"), UserError),
        (Files(address(s3_port, "training/out-of-reach")), StorageError("busy"), StorageError),
    ):
        save_checkpoint(place, 1, {"epoch": 1})
        with monkeypatch.context() as patched:
            patched.setattr(Files, "read", lambda *args, error=error: raises(error))
            with pytest.raises(told, match=r"Permission denied|busy"):
                load_latest(place)
        assert load_latest(place) == {"epoch": 1}


def test_a_run_begun_anew_keeps_what_it_writes_and_not_the_damaged(tmp_path: Path) -> None:
    for epoch in (6, 7):
        save_checkpoint(tmp_path, epoch, {"epoch": epoch})
        (tmp_path / f"epoch-000{epoch}.pt").write_bytes(b"")
    assert load_latest(tmp_path) is None
    for epoch in (1, 2, 3):
        assert Path(save_checkpoint(tmp_path, epoch, {"epoch": epoch})).is_file()
        assert load_latest(tmp_path) == {"epoch": epoch}
    assert {path.name for path in tmp_path.iterdir()} == {"epoch-0002.pt", "epoch-0003.pt"}


def test_what_was_reported_to_nobody_is_reported_again(data: Library, tmp_path: Path) -> None:
    run(data, tmp_path, stop_after=3)
    epochs = []
    train(
        system(), data, CONFIG, seed=3, folder=tmp_path, identity=IDENTITY, replay_after=1,
        report=lambda metrics, checkpoint: epochs.append(metrics["epoch"]),
    )  # fmt: skip
    assert epochs == [2, 3, 4, 5]


def test_a_checkpoint_of_something_else_is_refused(data: Library, tmp_path: Path) -> None:
    run(data, tmp_path, stop_after=1)
    with pytest.raises(UserError, match="made with recipe r, this run has other"):
        train(
            system(), data, CONFIG, seed=3, folder=tmp_path, identity={"recipe": "other"},
            report=lambda metrics, checkpoint: None,
        )  # fmt: skip


def test_a_loss_that_is_no_number_ends_the_run_with_advice(data: Library, tmp_path: Path) -> None:
    broken = system()
    with torch.no_grad():
        next(iter(broken.student.parameters())).fill_(math.nan)
    with pytest.raises(UserError, match=r"loss became nan in epoch 1.*learning_rate"):
        train(
            broken, data, CONFIG, seed=3, folder=tmp_path, identity=IDENTITY,
            report=lambda metrics, checkpoint: None,
        )  # fmt: skip


def test_only_two_checkpoints_and_the_best_are_kept(tmp_path: Path) -> None:
    for epoch in range(1, 6):
        save_checkpoint(tmp_path, epoch, {"epoch": epoch}, best=["best"] if epoch == 2 else [])
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
        save_checkpoint(tmp_path, 1, {"epoch": 1}, best=["best"])
    assert [path.name for path in done] == ["best.pt"]
    assert load_latest(tmp_path) is None


def test_patience_counts_the_epochs_of_this_run_alone(data: Library, tmp_path: Path) -> None:
    """One that goes on from a run that had stopped getting better does not stop at once."""
    still = {"batch_size": 4, "learning_rate": 1e-12, "patience": 1, "warmup_epochs": 0}
    run(data, tmp_path / "old", TrainingConfig(epochs=4, **still | {"patience": None}))
    old = load_checkpoint(tmp_path / "old" / "epoch-0004.pt")
    for place, score in enumerate((0.9, 0.1, 0.1, 0.1)):
        old["history"][place]["score"] = score
    torch.save(old, tmp_path / "stuck.pt")
    config = TrainingConfig(epochs=9, start_from=tmp_path / "stuck.pt", **still)
    first = run(data, tmp_path / "new", config, stop_after=5)
    assert [entry["epoch"] for entry in first] == [5]
    rest = run(data, tmp_path / "new", config)
    assert same(first + rest, run(data, tmp_path / "whole", config))
    # What the other run reported is not told again, whoever was cut off.
    heard = []
    train(
        system(), data, config, seed=3, folder=tmp_path / "new", identity=IDENTITY, replay_after=0,
        report=lambda metrics, checkpoint: heard.append(metrics["epoch"]),
    )  # fmt: skip
    assert heard == [entry["epoch"] for entry in first + rest]


def test_a_checkpoint_that_nothing_can_go_on_from_is_refused(data: Library, tmp_path: Path) -> None:
    run(data, tmp_path / "old", TrainingConfig(epochs=1, batch_size=4))
    old = tmp_path / "old" / "best.pt"
    torch.save({"features.0.weight": torch.zeros(2)}, tmp_path / "published.pt")
    torch.manual_seed(0)
    unscaled = StudentClap(
        StudentConfig(name="convnet", width=0.1), ObjectiveConfig(), AugmentConfig(), FeatureRecipe(),
        dim=DIM, normalized=False,
    )  # fmt: skip
    for name, start, epochs, chosen, said in (
        ("all", old, 1, system(), r"has all 1 epochs that this run is to have: raise training\.epochs"),
        ("strange", tmp_path / "published.pt", 2, system(), "is no checkpoint of a run"),
        ("scale", old, 2, unscaled, r"does not fit this run \(.*scale\.logit_scale.*configure"),
    ):
        with pytest.raises(UserError, match=said):
            run(
                data, tmp_path / name, TrainingConfig(epochs=epochs, batch_size=4, start_from=start),
                chosen=chosen,
            )  # fmt: skip


def test_a_gradient_that_is_no_number_is_kept_in_no_checkpoint(
    data: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even in an epoch's last step, after which no loss would tell."""
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda parameters, norm: torch.tensor(math.inf))
    with pytest.raises(UserError, match=r"gradient's norm became inf in epoch 1.*learning_rate"):
        run(data, tmp_path)
    assert load_latest(tmp_path) is None


def test_epochs_beyond_four_digits_stay_in_order(tmp_path: Path) -> None:
    for epoch in (9_999, 10_000, 10_001):
        save_checkpoint(tmp_path, epoch, {"epoch": epoch})
    assert load_latest(tmp_path) == {"epoch": 10_001}
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_killed_process_had_not_finished_goes(tmp_path: Path) -> None:
    for name in ("epoch-0003.pt.abc.tmp", "best.pt.abc.tmp", "notes.tmp"):
        (tmp_path / name).touch()
    save_checkpoint(tmp_path, 3, {"epoch": 3})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-0003.pt", "notes.tmp"]
