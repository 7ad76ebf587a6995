"""What a run's checkpoints tell: figures by epoch, the configuration, the cost."""

from pathlib import Path

import pytest
import yaml

from etude.errors import UserError
from etude.experiments.audio import AudioExperiment
from etude.runs import cost_report, made_with, runs_report
from etude.training.checkpoint import save_checkpoint

HISTORY = [
    {"epoch": epoch, "stage": 1.0, "train/loss": 1 / epoch, "validation/skill": 0.1 * epoch, "other": 7.5}
    for epoch in (1, 2)
]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        state = {"history": HISTORY, "best": 0.2, "config": {"student": {"width": 0.4}}}
        save_checkpoint(tmp_path / "runs" / name, 2, state, best=True)
    return tmp_path / "runs"


def test_a_tree_of_runs_is_shown_epoch_by_epoch(runs: Path) -> None:
    text = runs_report([runs])
    assert text.count("best 0.2000") == 2
    header, first, second = text.splitlines()[1:4]
    assert header.split() == ["epoch", "stage", "train/loss", "validation/skill"]
    assert first.split() == ["1", "1", "1", "0.1"]
    assert second.split() == ["2", "1", "0.5", "0.2"]
    assert "7.5" in runs_report([runs / "a" / "best.pt"], ["other"])


def test_a_checkpoint_tells_its_configuration(runs: Path) -> None:
    for path in (runs / "a", runs / "a" / "best.pt"):
        assert yaml.safe_load(made_with([path])) == {"student": {"width": 0.4}}


def test_what_is_not_there_is_said(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no figure skill; it has epoch, other"):
        runs_report([runs], ["skill"])
    with pytest.raises(UserError, match="no checkpoint below"):
        runs_report([tmp_path / "empty"])
    with pytest.raises(UserError, match="cannot read the checkpoint"):
        made_with([tmp_path / "gone.pt"])


def test_a_configuration_costs_what_is_counted() -> None:
    settings = AudioExperiment()
    cost = settings.cost()
    assert f"{cost.parameters:,} parameters" in cost_report(settings)
    assert cost.macs > 10_000_000
