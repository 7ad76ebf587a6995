"""The teacher gives the authors' vectors, from real music, segment by segment."""

import shutil
from importlib.metadata import distribution
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from etude.audio.decode import Audio, decode
from etude.audio.recipe import FeatureRecipe
from etude.audio.segment import Segments, segments_of
from etude.errors import BadAudio, UserError
from etude.teachers.base import Teacher
from etude.teachers.musicnn import Model, MusiCNN, log_mel_patches
from etude.teachers.musicnn_net import MusiCNNNet
from etude.teachers.tensor_bundle import read_tensor_bundle

_PACKAGE = Path(str(distribution("musicnn").locate_file("musicnn")))
_REFERENCE = Path(__file__).parent / "data"
_RATE = 16_000
_PATCH = 187


def _net(model: str) -> MusiCNNNet:
    folder = _PACKAGE / model
    index, data = (folder / ".index").read_bytes(), (folder / ".data-00000-of-00001").read_bytes()
    return MusiCNNNet(read_tensor_bundle(index, data))


@pytest.fixture(scope="module")
def net() -> MusiCNNNet:
    return _net("MSD_musicnn")


@pytest.fixture(scope="module")
def teacher() -> MusiCNN:
    return MusiCNN()


@pytest.fixture(scope="module")
def chorale(chorale_wav: bytes) -> Audio:
    return decode(chorale_wav)


def _start(audio: Audio, duration_s: float) -> tuple[Audio, Segments]:
    """The first seconds, and their segments as the platform cuts them."""
    part = Audio(audio.samples[: round(duration_s * audio.sample_rate)], audio.sample_rate)
    recipe = FeatureRecipe()
    return part, segments_of(len(part.resampled(recipe.sample_rate)), recipe)


def _librosa_patches(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The patches [n, 187, 96] of samples at 16 kHz, by librosa."""
    mel = librosa.feature.melspectrogram(
        y=samples, sr=_RATE, n_fft=512, hop_length=256, n_mels=96, center=False, window="hann", power=2.0
    )
    frames = np.log10(1.0 + 10_000.0 * mel).T
    n = len(frames) // _PATCH
    return np.asarray(frames[: n * _PATCH].reshape(n, _PATCH, 96), np.float32)


def _one_by_one(net: MusiCNNNet, patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean vector [200] of patches [n, 187, 96] that went through the network alone."""
    vectors = [net(torch.from_numpy(patch[None]))[0][0] for patch in patches]
    return np.asarray(torch.stack(vectors).mean(0).numpy(), np.float32)


@pytest.mark.parametrize("model", ["MSD_musicnn", "MTT_musicnn"])
def test_the_network_gives_what_the_authors_give(model: str) -> None:
    patches = torch.from_numpy(np.load(_REFERENCE / "patches.npy"))
    reference = np.load(_REFERENCE / f"ref_{model}.npz")
    embeddings, logits = _net(model)(patches)
    assert np.abs(embeddings.numpy() - reference["pen"]).max() <= 1e-4
    assert np.abs(logits.numpy() - reference["logits"]).max() <= 1e-4


@pytest.mark.parametrize("model", ["MSD_musicnn", "MTT_musicnn"])
def test_anchors_point_to_where_the_tags_are(model: Model) -> None:
    anchors = MusiCNN(model).anchors
    assert anchors.shape == (50, 200)
    np.testing.assert_allclose(np.linalg.norm(anchors, axis=1), 1.0, atol=1e-6)
    reference = np.load(_REFERENCE / f"ref_{model}.npz")
    # What differs between two patches' logits is along the anchors, but for each tag's own scale.
    moved = (reference["pen"][1:] - reference["pen"][:1]) @ anchors.T
    logits = reference["logits"][1:] - reference["logits"][:1]
    scale = (moved * logits).sum(axis=0) / (moved**2).sum(axis=0)
    assert (scale > 0).all()
    np.testing.assert_allclose(moved * scale, logits, atol=1e-3)


def test_the_front_end_is_librosas(chorale: Audio) -> None:
    samples = chorale.resampled(_RATE)
    expected = _librosa_patches(samples)
    patches = log_mel_patches(samples, _PATCH * 256 * np.arange(len(expected)))
    assert len(expected) == 7
    np.testing.assert_allclose(patches, expected, atol=1e-4)


@pytest.mark.parametrize("duration_s", [3.5, 10.0, 17.3])
def test_targets_are_the_means_of_patches(
    teacher: MusiCNN, net: MusiCNNNet, chorale: Audio, duration_s: float
) -> None:
    audio, segments = _start(chorale, duration_s)
    targets = teacher.embed(audio, segments)
    samples = audio.resampled(_RATE)
    expected = [_one_by_one(net, _librosa_patches(cut)) for cut in segments.cut(samples, _RATE)]
    np.testing.assert_allclose(targets.segments, expected, atol=1e-4)
    np.testing.assert_allclose(targets.track, _one_by_one(net, _librosa_patches(samples)), atol=1e-4)
    assert targets.segments.dtype == targets.track.dtype == np.float32


def test_the_batch_size_changes_nothing(teacher: MusiCNN, chorale: Audio) -> None:
    audio, segments = _start(chorale, 12.0)
    alone = MusiCNN(batch_size=1).embed(audio, segments)
    together = teacher.embed(audio, segments)
    np.testing.assert_allclose(alone.segments, together.segments, atol=1e-4)
    np.testing.assert_allclose(alone.track, together.track, atol=1e-4)


def test_models_are_told_apart() -> None:
    models: tuple[Model, ...] = ("MSD_musicnn", "MTT_musicnn")
    teachers: list[Teacher] = [MusiCNN(model) for model in models]
    assert [teacher.id for teacher in teachers] == ["msd_musicnn-8579734e", "mtt_musicnn-041f3935"]
    assert all((one.dim, one.normalized, one.license) == (200, False, "ISC") for one in teachers)


def test_a_track_shorter_than_a_patch_is_bad_audio(teacher: MusiCNN, chorale: Audio) -> None:
    with pytest.raises(BadAudio, match=r"too short: 3\.00 s; MusiCNN needs at least 3\.008 s"):
        teacher.embed(*_start(chorale, 3.0))


def test_segments_shorter_than_a_patch_are_refused(teacher: MusiCNN, chorale: Audio) -> None:
    with pytest.raises(ValueError, match=r"segments of 2\.00 s are too short"):
        teacher.embed(chorale, Segments((0,), 96_000, 48_000))


def test_a_batch_holds_a_patch() -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        MusiCNN(batch_size=0)


@pytest.fixture
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `musicnn` that hides the installed one: the folder of its MSD weights, a real copy."""
    copy = tmp_path / "musicnn"
    shutil.copytree(_PACKAGE / "MSD_musicnn", copy / "MSD_musicnn")
    (copy / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return copy / "MSD_musicnn"


@pytest.mark.parametrize("name", [".index", ".data-00000-of-00001"])
def test_changed_weights_are_refused(other_package: Path, name: str) -> None:
    content = bytearray((other_package / name).read_bytes())
    content[1000] ^= 1
    (other_package / name).write_bytes(content)
    with pytest.raises(UserError, match=r"another sha256.*pip install --no-deps musicnn==0\.1\.0"):
        MusiCNN()


def test_missing_weights_are_reported(other_package: Path) -> None:
    (other_package / ".index").unlink()
    with pytest.raises(UserError, match=r"missing.*pip install --no-deps musicnn==0\.1\.0"):
        MusiCNN()


def test_a_missing_package_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(UserError, match=r"missing.*pip install --no-deps musicnn==0\.1\.0"):
        MusiCNN()
