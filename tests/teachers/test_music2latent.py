"""Latents become windows as upstream reads them, through a stand-in: the package is not installed."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from etude.audio.decode import Audio, decode
from etude.audio.segment import Segments
from etude.errors import BadAudio, UserError
from etude.sources.base import Track
from etude.teachers import Music2LatentConfig, build_teacher
from etude.teachers.music2latent import Music2Latent, as_upstream
from tests.support import music2latent as package

SEGMENTS = Segments((0,), 480_000, 48_000)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder of weights for the stand-in, which can be imported as the package."""
    package.install(monkeypatch)
    return str(package.write_weights(tmp_path))


def _latents(samples: NDArray[np.float32], weights: str) -> NDArray[np.float32]:
    """What the stand-in's matrix gives, number by number [64, n]."""
    state = torch.load(Path(weights) / "music2latent.pt", weights_only=False)["gen_state_dict"]
    matrix = state["encoder.project.weight"].double().numpy().reshape(64, 2, 512, 8)
    n = (len(samples) - 1536) // 4096
    frames = samples[: 4096 * n].astype(np.float64).reshape(n, 8, 512)
    both = np.stack([frames, frames**2], 1)  # [n, 2, 8, 512]
    return np.asarray(np.einsum("ctfk,nckf->tn", matrix.transpose(1, 0, 2, 3), both), np.float32)


def test_mono_music_is_left_and_right_alike(weights: str, chorale_wav: bytes) -> None:
    audio = decode(chorale_wav)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # half precision is off, so nothing warns of a missing GPU
        teacher = build_teacher(Music2LatentConfig(weights=weights, batch_size=2))
        targets = teacher.embed(audio, SEGMENTS, Track("", "", ""))
    expected_TC = _latents(audio.resampled(44_100), weights).T
    assert targets.segments.shape == (len(expected_TC), 192) and len(expected_TC) > 107  # of 10 s
    np.testing.assert_allclose(targets.segments[:, 0:128:2], expected_TC, atol=1e-5)
    np.testing.assert_array_equal(targets.segments[:, 0:128:2], targets.segments[:, 1:128:2])
    np.testing.assert_allclose(targets.segments[:, 128:], np.sqrt(2) * np.abs(expected_TC), atol=2e-5)
    np.testing.assert_allclose(targets.track, targets.segments.mean(axis=0), atol=1e-6)
    assert targets.segments.dtype == targets.track.dtype == np.float32
    assert (teacher.dim, teacher.normalized, teacher.license) == (192, False, "CC-BY-NC-4.0")
    assert teacher.id.startswith("music2latent-")


def test_ten_seconds_have_107_latents(weights: str) -> None:
    samples = np.random.default_rng(0).standard_normal(441_000).astype(np.float32)
    assert Music2Latent(weights).embed(Audio(samples, 44_100), SEGMENTS).segments.shape == (107, 192)


def test_left_and_right_stand_by_turns_before_their_magnitudes() -> None:
    left, right = np.array([[3.0], [0.0]], np.float32), np.array([[-4.0], [2.0]], np.float32)
    assert as_upstream(left, right)[0].tolist() == pytest.approx([3, -4, 0, 2, 5, 2])


def test_too_little_music_is_bad_audio(weights: str) -> None:
    teacher, samples = Music2Latent(weights), np.ones(5_632, np.float32)
    assert teacher.embed(Audio(samples, 44_100), SEGMENTS).segments.shape == (1, 192)
    with pytest.raises(BadAudio, match=r"too short: 0\.13 s; Music2Latent needs at least 0\.13 s"):
        teacher.embed(Audio(samples[:-1], 44_100), SEGMENTS)


def test_code_in_the_weights_is_not_executed(weights: str, tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"gen_state_dict": {}, "optimizer": Harmful()}, tmp_path / "music2latent.pt")
    with pytest.raises(UserError, match="pickled code, which is never executed"):
        Music2Latent(weights).embed(Audio(np.ones(44_100, np.float32), 44_100), SEGMENTS)
    assert not (tmp_path / "executed").exists()


def test_other_files_and_packages_are_refused(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio, file = Audio(np.ones(44_100, np.float32), 44_100), tmp_path / "music2latent.pt"
    torch.save({"state_dict": {}}, file)
    with pytest.raises(UserError, match=r"it has no gen_state_dict: fetch music2latent\.pt again"):
        Music2Latent(weights).embed(audio, SEGMENTS)
    torch.save({"gen_state_dict": {"encoder.project.weight": torch.zeros(3)}}, file)
    with pytest.raises(UserError, match=r"is no Music2Latent: it has \[3\] at encoder\.project\.weight"):
        Music2Latent(weights).embed(audio, SEGMENTS)
    monkeypatch.delattr(sys.modules["music2latent.models"], "Encoder")
    with pytest.raises(UserError, match=r"package music2latent cannot be used .*music2latent==0\.1\.8"):
        Music2Latent(weights).embed(audio, SEGMENTS)
    file.unlink()
    with pytest.raises(UserError, match=r"is no Music2Latent: it has no file music2latent\.pt"):
        Music2Latent(weights)


def test_a_missing_package_is_told_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(UserError, match=r"not installed: pip install --no-deps music2latent==0\.1\.8"):
        Music2Latent(str(package.write_weights(tmp_path)))
