"""Emotion experiments from prepared pieces to checked files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from etude.emotion.models import MODELS, Model
from etude.errors import UserError
from etude.evaluation.emotion import EmotionFigures
from etude.experiments.emotion import EmotionExperiment, EmotionStudy
from etude.export.emotion import EmotionRelease, collect
from etude.export.release import export_checkpoint
from etude.training.checkpoint import load_checkpoint
from etude.training.loop import train
from tests.support.emotion import synthetic_experiment

QUICK = ("--training.epochs", "6", "--training.learning_rate", "3e-3")


def learn(study: EmotionStudy, folder: Path) -> EmotionFigures:
    """Train, and judge the best epoch on the test set."""
    system = study.system(0)
    train(
        system, study, study.settings.training,
        seed=0, folder=folder, report=lambda metrics, path: None, identity=study.identity(),
    )  # fmt: skip
    best = study.system(0, load_checkpoint(folder / "best.pt")["model"])
    return best.evaluate(study.test, 64)


def of(settings: EmotionExperiment, model: Model) -> EmotionStudy:
    return settings.model_copy(update={"model": model}).open()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> EmotionExperiment:
    return synthetic_experiment(tmp_path_factory.mktemp("home"), *QUICK, n=400)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_beats_the_best_constant_where_there_is_something_to_learn(
    settings: EmotionExperiment, model: Model, tmp_path: Path
) -> None:
    found = learn(of(settings, model), tmp_path)
    assert found.skill_low > 0
    if model == "harmony":
        assert found.skills["emotion"] > 0.05


@pytest.mark.parametrize("model", MODELS)
def test_with_shuffled_labels_no_model_has_skill(
    settings: EmotionExperiment, model: Model, tmp_path: Path
) -> None:
    """Were a label, or anything made of one, among the inputs, shuffling would not take the skill away.

    Harmony is told the chords before as well, which are no label: there what the emotion adds goes away.
    """
    study = of(settings, model)
    rows = [row for part in study.sets.values() for row in part]
    order = np.random.default_rng(5).permutation(len(rows))
    mixed = {
        row.track_id: replace(row, vad=rows[other].vad, node=rows[other].node)
        for row, other in zip(rows, order, strict=True)
    }
    sets = {name: [mixed[row.track_id] for row in part] for name, part in study.sets.items()}
    found = learn(replace(study, sets=sets), tmp_path)
    if model == "harmony":
        assert abs(found.skills["emotion"]) < 0.02
        return
    assert found.skill_low <= 0
    assert found.skill < 0.1


@pytest.mark.parametrize("model", ["recognizer", "harmony"])
def test_an_untrained_model_is_the_best_constant(settings: EmotionExperiment, model: Model) -> None:
    study = of(settings, model)
    system = study.system(0)
    system.start_at(study.training)
    found = system.evaluate(study.test, 64)
    assert abs(found.skill) < 0.01


def test_files_agree_with_pytorch_and_stand_together(settings: EmotionExperiment, tmp_path: Path) -> None:
    study = of(settings, "groove")
    learn(study, tmp_path / "run")
    release = EmotionRelease(study)
    done = export_checkpoint(release, tmp_path / "run" / "best.pt", tmp_path / "files", "unknown")
    assert done.parity["input"].max_difference < 1e-5
    assert release.score(done.files).skill == pytest.approx(done.validation.skill, abs=1e-4)
    card = (tmp_path / "files" / "README.md").read_text()
    assert "nobody, they are made up" in card
    folder = collect(study.settings, tmp_path / "files")
    assert {path.name for path in folder.iterdir()} == {
        f"groove_predictor{ending}" for ending in (".onnx", ".json", ".safetensors")
    }


def test_fine_tuning_leaves_frozen_layers_alone(settings: EmotionExperiment, tmp_path: Path) -> None:
    study = of(settings, "melody")
    learn(study, tmp_path / "first")
    before = load_checkpoint(tmp_path / "first" / "best.pt")
    training = settings.training.model_copy(
        update={"start_from": tmp_path / "first" / "best.pt", "epochs": before["epoch"] + 3}
    )
    reset = training.model_copy(update={"reset": ("optimizer", "schedule")})
    student = settings.student.model_copy(update={"frozen_layers": 1})
    with pytest.raises(UserError, match=r"add optimizer to training\.reset"):
        learn(of(settings.model_copy(update={"training": training, "student": student}), "melody"), tmp_path)
    fine = of(settings.model_copy(update={"training": reset, "student": student}), "melody")
    learn(fine, tmp_path / "fine")
    after = load_checkpoint(tmp_path / "fine" / "best.pt")["model"]
    for name, value in before["model"].items():
        if name.startswith("network.blocks.0."):
            assert torch.equal(value, after[name])
    assert not torch.equal(
        before["model"]["network.blocks.2.linear.weight"], after["network.blocks.2.linear.weight"]
    )
    with pytest.raises(UserError, match="frozen_layers is 3"):
        of(
            settings.model_copy(update={"student": student.model_copy(update={"frozen_layers": 3})}), "melody"
        ).system(0)


def test_a_run_resumes_to_the_same_losses(settings: EmotionExperiment, tmp_path: Path) -> None:
    def losses(folder: Path, *epochs: int) -> list[float]:
        for n in epochs:
            training = settings.training.model_copy(update={"epochs": n, "schedule": "plateau"})
            learn(of(settings.model_copy(update={"training": training}), "dynamics"), folder)
        return [
            entry["train/loss"]
            for entry in load_checkpoint(next(iter(sorted(folder.glob("epoch-*"))[::-1])))["history"]
        ]

    assert losses(tmp_path / "a", 4) == losses(tmp_path / "b", 2, 4)
