"""Small students, exported as the jobs export them; they have hardly learned anything."""

from pathlib import Path

import pytest
import torch

from etude.audio.augment import AugmentConfig
from etude.audio.recipe import FeatureRecipe
from etude.config import load
from etude.export.onnx import export_onnx, write_metadata
from etude.inference.search import Searchable, open_search
from etude.inference.settings import Search
from etude.objectives.distillation import ObjectiveConfig
from etude.students import StudentConfig
from etude.systems.student_clap import StudentClap
from tests.support.music_text import searchable_home


@pytest.fixture(scope="session")
def system() -> StudentClap:
    torch.manual_seed(0)
    student = StudentConfig(name="convnet", width=0.1, frame_stride=4)
    system = StudentClap(
        student, ObjectiveConfig(), AugmentConfig(), FeatureRecipe(), dim=512, normalized=True
    )
    return system.eval()


@pytest.fixture(scope="session")
def exported(system: StudentClap, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`student_waveform.onnx` with its record inside."""
    (spec,) = (spec for spec in system.exports() if spec.name == "student_waveform")
    path = export_onnx(spec, tmp_path_factory.mktemp("exported"))
    write_metadata(path, {"recipe": system.recipe.model_dump(), "normalized": True, "teacher": "none"})
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a prepared library and an exported pair."""
    home = tmp_path_factory.mktemp("home")
    searchable_home(home)
    return home


@pytest.fixture(scope="module")
def library(home: Path) -> Searchable:
    return open_search(load(Search, ["--home", str(home)]), lambda *counts: None)
