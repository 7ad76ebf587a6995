"""What a run's checkpoints tell: figures by epoch, the configuration, the cost."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from etude.errors import UserError
from etude.experiments.audio import AudioExperiment
from etude.runs import cost_report, made_with, runs_report
from etude.training.checkpoint import save_checkpoint

REPOSITORY = Path(__file__).resolve().parents[1]
HISTORY = [
    {"epoch": epoch, "stage": 1.0, "train/loss": 1 / epoch, "validation/skill": 0.1 * epoch, "other": 7.5}
    for epoch in (1, 2)
]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        state = {"history": HISTORY, "best": 0.2, "config": {"student": {"width": 0.4}}}
        save_checkpoint(tmp_path / "runs" / name, 2, state, best=["best"])
    return tmp_path / "runs"


def test_a_tree_of_runs_is_shown_epoch_by_epoch(runs: Path) -> None:
    text = runs_report([runs])
    assert text.count("best 0.2000") == 2
    header, first, second = text.splitlines()[1:4]
    assert header.split() == ["epoch", "stage", "train/loss", "validation/skill"]
    assert first.split() == ["1", "1", "1", "0.1"]
    assert second.split() == ["2", "1", "0.5", "0.2"]
    assert "7.5" in runs_report([runs / "a" / "best.pt"], ["other"])


def test_a_pair_is_shown_by_what_it_is_judged_by(tmp_path: Path) -> None:
    found = {"train/contrastive": 2.5, "validation/text_to_music_mrr": 0.125}
    history = [{"epoch": 1, "stage": 1.0, "train/loss": 1.0, **found, "validation/musicnn/skill": 0.3}]
    save_checkpoint(tmp_path / "pair", 1, {"history": history, "best": 0.125}, best=["best"])
    header, row = runs_report([tmp_path]).splitlines()[1:]
    assert header.split() == ["epoch", "stage", "train/loss", *found]
    assert row.split() == ["1", "1", "1", "2.5", "0.125"]


def test_a_checkpoint_tells_its_configuration(runs: Path) -> None:
    for path in (runs / "a", runs / "a" / "best.pt"):
        assert yaml.safe_load(made_with([path])) == {"student": {"width": 0.4}}


def test_what_is_not_there_is_said(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no figure skill; it has epoch, other"):
        runs_report([runs], ["skill"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no checkpoint below"):
        runs_report([tmp_path / "empty"])
    with pytest.raises(UserError, match="here are 0 runs"):
        made_with([tmp_path / "empty"])
    with pytest.raises(UserError, match="here are 2 runs"):
        made_with([runs])
    for tell in (runs_report, made_with):
        with pytest.raises(UserError, match=r"there is no .*gone\.pt"):
            tell([tmp_path / "gone.pt"])
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "published.pt")
    with pytest.raises(UserError, match="holds no epochs, so it is no checkpoint of a run"):
        runs_report([tmp_path / "published.pt"])
    with pytest.raises(UserError, match="does not say which configuration made it"):
        made_with([tmp_path / "published.pt"])


def test_a_damaged_checkpoint_does_not_hide_the_one_before(runs: Path) -> None:
    (runs / "a" / "epoch-0003.pt").write_bytes(b"half")
    assert runs_report([runs]).count("best 0.2000") == 2
    assert made_with([runs / "a"])


@pytest.fixture
def job() -> Callable[[list[str]], int]:
    spec = importlib.util.spec_from_file_location("inspect_job", REPOSITORY / "jobs" / "inspect_run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Callable[[list[str]], int] = module.main
    return main


def test_options_and_paths_come_in_any_order(
    job: Callable[[list[str]], int], runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job([str(runs / "a"), "--columns", "other"]) == 0
    said = capsys.readouterr().out
    assert "7.5" in said
    assert job(["--columns", "other", str(runs / "a")]) == 0
    assert capsys.readouterr().out == said
    assert job(["--config-of", str(runs / "a")]) == 0
    assert "width: 0.4" in capsys.readouterr().out


def test_a_cost_is_that_of_the_configuration_file(
    job: Callable[[list[str]], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "narrow.yaml").write_text("student: {name: convnet, width: 0.1}")
    assert job(["--cost", "audio", "--config", str(tmp_path / "narrow.yaml")]) == 0
    by_file = capsys.readouterr().out
    assert job(["--cost", "audio", "--student.name", "convnet", "--student.width", "0.1"]) == 0
    assert capsys.readouterr().out == by_file
    assert job(["--cost", "audio"]) == 0
    assert capsys.readouterr().out != by_file


def test_a_configuration_costs_what_is_counted() -> None:
    settings = AudioExperiment()
    cost = settings.cost()
    assert f"{cost.parameters:,} parameters" in cost_report(settings)
    assert cost.macs > 10_000_000
