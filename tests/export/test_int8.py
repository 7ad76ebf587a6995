"""An 8-bit form is kept only if it is faster and says the same."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from etude.audio.augment import AugmentConfig
from etude.experiments.audio import AudioExperiment, AudioStudy
from etude.export import int8
from etude.export.int8 import Int8, compare, offer_int8, quantise
from etude.export.onnx import export_onnx, read_metadata, run_onnx, session, write_metadata
from etude.objectives.distillation import ObjectiveConfig
from etude.students import StudentConfig
from etude.systems.student_clap import StudentClap


@pytest.fixture(scope="module")
def study(demo: AudioExperiment) -> AudioStudy:
    return demo.open()


def mel_form(study: AudioStudy, folder: Path, seed: int = 0, **student: object) -> Path:
    """A student that tells segments apart without having learned to: its norms know what they see."""
    torch.manual_seed(seed)
    config = StudentConfig.model_validate({"name": "convnet", "width": 0.1, "frame_stride": 4} | student)
    recipe = study.settings.recipe
    system = StudentClap(config, ObjectiveConfig(), AugmentConfig(), recipe, dim=32, normalized=True).train()
    with torch.no_grad():
        for _ in range(8):
            system.student(
                torch.from_numpy(np.concatenate([row.mel.segments() for row in study.splits.train]))
            )
    path = export_onnx(system.eval().exports()[0], folder)
    write_metadata(path, {"recipe_id": recipe.id})
    return path


@pytest.fixture(scope="module")
def narrow(study: AudioStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mel_form(study, tmp_path_factory.mktemp("narrow"))


@pytest.fixture(scope="module")
def wide(study: AudioStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mel_form(study, tmp_path_factory.mktemp("wide"), seed=1, width=0.5, frame_stride=1)


@pytest.fixture(scope="module")
def mels(study: AudioStudy) -> np.ndarray:
    return np.concatenate([row.mel.segments() for row in study.test])[:, None]


def test_the_integer_form_computes_in_integers_and_agrees(
    study: AudioStudy, narrow: Path, mels: np.ndarray, tmp_path: Path
) -> None:
    learned = np.concatenate([row.mel.segments() for row in study.splits.train])[:, None]
    path = quantise(narrow, learned, tmp_path)
    weights = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    scales = [tensor.dims[0] for name, tensor in weights.items() if "weight" in name and "scale" in name]
    assert any(count > 1 for count in scales)  # one for every channel
    assert onnx.TensorProto.INT8 in {tensor.data_type for tensor in weights.values()}
    a, b = (run_onnx(session(file), mels, 4) for file in (narrow, path))
    assert 0.9 < (a * b).sum(axis=1).min() < 1 - 1e-9


def test_it_is_judged_by_time_and_by_cosine(
    narrow: Path, wide: Path, mels: np.ndarray, tmp_path: Path
) -> None:
    to = tmp_path / "kept.onnx"
    slower = compare(narrow, wide, mels, to)
    assert not slower.faster and not slower.faithful and slower.file is None
    assert "not faster on this machine and its mean cosine is not above 0.99" in slower.describe()
    unlike = compare(wide, narrow, mels, to)
    assert unlike.faster and not unlike.faithful and unlike.file is None
    assert "not offered: its mean cosine is not above 0.99" in unlike.describe()
    same = compare(narrow, narrow, mels, to)
    assert same.faithful
    assert same.min_cosine == pytest.approx(1)
    assert same.n_segments == len(mels)
    assert (same.file == to) == same.faster


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_kept_says_what_it_is_and_what_is_not_kept_is_gone(
    study: AudioStudy, narrow: Path, tmp_path: Path, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict is set, for the machine's must not decide a test; all else is real."""
    measured: list[Int8] = []

    def judged(mel_file: Path, made: Path, mels: np.ndarray, path: Path) -> Int8:
        figures = vars(compare(mel_file, made, mels, path)) | {"file": path if kept else None}
        measured.append(Int8(**figures))
        return measured[0]

    monkeypatch.setattr(int8, "compare", judged)
    mel_file, card = tmp_path / "student.onnx", tmp_path / "README.md"
    mel_file.write_bytes(narrow.read_bytes())
    card.write_text("# A student\n")
    (tmp_path / "student_int8.onnx").write_text("of an earlier export")
    found = offer_int8(mel_file, study.splits.train, study.test, card)
    assert found == measured[0]
    assert {path.name for path in tmp_path.iterdir()} == {"student.onnx", "README.md"} | (
        {"student_int8.onnx"} if kept else set()
    )
    assert ("8-bit" in card.read_text()) == kept
    if kept:
        record = read_metadata(tmp_path / "student_int8.onnx")
        assert record["precision"] == "int8"
        assert record["recipe_id"] == study.settings.recipe.id
        assert record["int8"] == {
            name: pytest.approx(value) for name, value in vars(found).items() if name != "file"
        }
