"""An exported student hears whole files as the store's features were made."""

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from etude.audio.decode import decode
from etude.audio.mel import log_mel
from etude.audio.waveform import prepare_waveform
from etude.errors import BadAudio, UserError
from etude.export.onnx import read_metadata, write_metadata
from etude.inference.student import Student
from etude.systems.student_clap import StudentClap


def opened(path: Path | None) -> Student:
    return Student(path, 3.5, -60.0)


def test_a_files_vector_is_the_mean_of_its_segments(
    exported: Path, system: StudentClap, chorale_wav: bytes
) -> None:
    student = opened(exported)
    vector = student.embed(chorale_wav)
    mel = log_mel(prepare_waveform(decode(chorale_wav), system.recipe), system.recipe)
    with torch.inference_mode():
        segments = system.student(torch.from_numpy(mel.segments())).numpy()
    mean = segments.mean(axis=0)
    np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-4)
    assert (student.dim, student.normalized, vector.dtype) == (512, True, np.float32)
    assert len(segments) == 4


def test_without_normalising_the_mean_stays_as_it_is(
    exported: Path, chorale_wav: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "raw_waveform.onnx"
    path.write_bytes(exported.read_bytes())
    write_metadata(path, read_metadata(path) | {"normalized": False})
    raw, unit = opened(path).embed(chorale_wav), opened(exported).embed(chorale_wav)
    assert np.linalg.norm(raw) < 1 - 1e-6
    np.testing.assert_allclose(raw / np.linalg.norm(raw), unit, atol=1e-6)


def test_what_preparing_would_refuse_has_no_vector(exported: Path, chorale_wav: bytes) -> None:
    student = opened(exported)
    for data, reason in (
        (b"", "empty"),
        (b"nonsense" * 99, "unreadable"),
        (chorale_wav[:200_000], "truncated"),
    ):
        with pytest.raises(BadAudio, match=reason):
            student.embed(data)


def test_a_student_of_another_decoder_is_pointed_out(
    exported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "old_waveform.onnx"
    path.write_bytes(exported.read_bytes())
    record = read_metadata(path)
    recipe = record["recipe"]
    assert isinstance(recipe, dict)
    write_metadata(path, record | {"recipe": recipe | {"decoder": "pyav-0+soxr-0"}})
    with caplog.at_level(logging.WARNING):
        opened(path)
    assert "was trained with pyav-0+soxr-0" in caplog.text


def test_files_that_are_no_students_are_refused(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--model FILE"):
        opened(None)
    with pytest.raises(UserError, match="cannot read the model"):
        opened(tmp_path / "nowhere.onnx")
    model = onnx.load(exported)
    model.graph.input[0].name = "mel_spectrogram"
    for node in model.graph.node:
        node.input[:] = ["mel_spectrogram" if name == "waveform" else name for name in node.input]
    onnx.save(model, tmp_path / "student.onnx")
    with pytest.raises(UserError, match=r"takes mel_spectrogram: .* ends in _waveform\.onnx"):
        opened(tmp_path / "student.onnx")
    (tmp_path / "nonsense.onnx").write_bytes(b"nonsense")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "silent.onnx")
    for name in ("nonsense", "silent"):
        with pytest.raises(UserError, match="not an ONNX file that Étude has exported"):
            opened(tmp_path / f"{name}.onnx")
