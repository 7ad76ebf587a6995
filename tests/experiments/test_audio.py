"""An audio experiment says what does not fit, and needs the files it began with only to begin."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from etude.data.batches import Dataset, Splits
from etude.errors import UserError
from etude.experiments.audio import AudioExperiment, AudioStudy
from etude.students import build_student
from etude.students.config import StudentConfig
from etude.teachers import build_teacher

SMALL = StudentConfig(name="convnet", width=0.1)


def specialist(path: Path, experiment: AudioExperiment, dim: int, teacher: str) -> None:
    """What a run keeps of a small student, as far as a fusion reads it."""
    model = {f"student.{name}": value for name, value in build_student(SMALL, dim, True).state_dict().items()}
    torch.save(
        {
            "config": experiment.model_dump(mode="json", exclude={"tracking"}), "model": model,
            "optimizer": {}, "history": [], "identity": {"recipe": experiment.recipe.id, "teacher": teacher},
        },
        path,
    )  # fmt: skip


def test_a_fusions_cost_needs_no_file_once_it_is_trained(tmp_path: Path) -> None:
    plain = AudioExperiment(home=tmp_path, student=SMALL)
    teacher, path = build_teacher(plain.teacher), tmp_path / "best.pt"
    specialist(path, plain, teacher.dim, teacher.id)
    fused = AudioExperiment(home=tmp_path, student=SMALL.model_copy(update={"specialist": path}))
    data = Dataset([], fused.recipe)
    study = AudioStudy(fused, teacher, Splits(data, data, data, "none"))
    state, cost = study.system(0).state_dict(), fused.cost()
    assert cost.macs > plain.cost().macs
    path.unlink()
    assert fused.cost(state) == cost
    assert torch.equal(study.system(0, state).state_dict()["student.head.alpha"], state["student.head.alpha"])
    with pytest.raises(UserError, match=r"cannot read student\.specialist"):
        fused.cost()


def test_a_specialist_that_is_no_run_or_anothers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    fused = AudioExperiment(home=tmp_path, student=SMALL.model_copy(update={"specialist": path}))
    teacher, data = build_teacher(fused.teacher), Dataset([], fused.recipe)
    study = AudioStudy(fused, teacher, Splits(data, data, data, "none"))
    torch.save({"features.0.weight": torch.zeros(2)}, path)  # as published weights are
    with pytest.raises(UserError, match="is no checkpoint of a run"):
        study.system(0)
    specialist(path, fused, teacher.dim, "another")
    with pytest.raises(UserError, match="trained with teacher another"):
        study.system(0)


@pytest.mark.parametrize("seed", [-1, 2**29])
def test_a_seed_that_no_generator_takes_is_refused(seed: int) -> None:
    with pytest.raises(ValidationError, match="seed"):
        AudioExperiment(seed=seed)
