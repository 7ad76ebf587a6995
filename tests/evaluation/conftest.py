"""An export folder as the jobs leave it, of a student trained for a moment on the demo library."""

from pathlib import Path

import pytest

from etude.config import save
from etude.experiments.audio import AudioExperiment, AudioStudy
from etude.export.audio import AudioRelease
from etude.export.onnx import export_onnx, write_metadata
from etude.students import StudentConfig
from etude.systems.student_clap import StudentClap
from etude.training.loop import train


@pytest.fixture(scope="module")
def study(demo: AudioExperiment) -> AudioStudy:
    student = StudentConfig(name="convnet", width=0.1, frame_stride=4)
    data = demo.model_dump() | {"student": student, "training": {"epochs": 4, "batch_size": 4}}
    return AudioExperiment(**data).open()


@pytest.fixture(scope="module")
def system(study: AudioStudy, tmp_path_factory: pytest.TempPathFactory) -> StudentClap:
    system = study.system(seed=0)
    train(
        system, study, study.settings.training, seed=0, folder=tmp_path_factory.mktemp("run"),
        report=lambda metrics, path: None, identity=study.identity(),
    )  # fmt: skip
    return system.eval()


@pytest.fixture(scope="module")
def exported(system: StudentClap, study: AudioStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both forms and config.yaml."""
    return export(system, study, tmp_path_factory.mktemp("export"))


def export(system: StudentClap, study: AudioStudy, folder: Path) -> Path:
    cost = study.settings.cost()
    record = AudioRelease(study).record() | {"data_hash": study.data_hash}
    for spec in system.exports():
        write_metadata(export_onnx(spec, folder), record | {"parameters": cost.parameters, "macs": cost.macs})
    save(study.settings, folder / "config.yaml")
    return folder
