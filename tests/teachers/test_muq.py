"""MuQ-MuLan's vectors are those of the authors' package, window by window.

Its published weights cannot be had here: these are random, and very small; what the package gave for them
stands in `data/muq`, as told in `data/README.md`.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray

from etude.audio.decode import Audio
from etude.audio.segment import Segments
from etude.errors import BadAudio, UserError
from etude.sources.base import Track
from etude.teachers import MuQConfig, Teacher, build_teacher
from etude.teachers.muq import MuQ
from etude.teachers.muq_net import MuQMuLanNet

DATA = Path(__file__).parent / "data" / "muq"
RATE, CLIP = 24_000, 240_000
SEGMENTS = Segments((0,), 480_000, 48_000)  # of no importance to a teacher that has windows of its own
Folder = Callable[..., Path]


def sound(seconds: float) -> NDArray[np.float32]:
    """A scale in plucked tones, slowly louder and softer: that of the references."""
    time = np.arange(round(RATE * seconds)) / RATE
    pitch = 220 * 2 ** (np.floor(time * 3) % 12 / 12)
    tone = np.sin(2 * np.pi * np.cumsum(pitch) / RATE) * np.exp(-3 * (time * 3 % 1))
    return np.asarray(0.3 * tone * (0.5 + 0.5 * np.sin(time / 7)), np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """folder(layer, **changes of its config.json) -> a model's folder, with the MuQ within beside it."""

    def made(layer: int = -1, **changes: Any) -> Path:
        model, within = tmp_path / "mulan", tmp_path / "muq-tiny"
        for one in (model, within):
            one.mkdir(exist_ok=True)
        shutil.copy(DATA / "model.safetensors", model)
        shutil.copy(DATA / "muq_config.json", within / "config.json")
        config = json.loads((DATA / "config.json").read_text())
        config["audio_model"] |= {"name": str(within), "use_layer_idx": layer}
        (model / "config.json").write_text(json.dumps(config | changes))
        return model

    return made


def _heard(teacher: Teacher, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return teacher.embed(Audio(samples, RATE), SEGMENTS, Track("", "", "")).segments


@pytest.mark.parametrize(("layer", "name"), [(-1, "last"), (2, "second")])
def test_the_vectors_are_the_packages(folder: Folder, layer: int, name: str) -> None:
    reference = np.load(DATA / "vectors.npz")
    teacher = build_teacher(MuQConfig(weights=str(folder(layer))))
    for seconds in (3, 10, 27.5):
        expected = [reference[f"{name}_s{seconds:g}"]]
        np.testing.assert_allclose(_heard(teacher, sound(seconds)), expected, atol=1e-4)
    assert (teacher.dim, teacher.normalized, teacher.license) == (12, False, "CC-BY-NC-4.0")


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, [1] * 26), (8, [8, 8, 8, 2])])
def test_windows_are_the_packages_and_a_clip_is_heard_once(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, batch_size: int, sizes: list[int]
) -> None:
    """Of 140 s: clips from 0 to 130 s in the first and the third window, from 15 to 125 s in the second."""
    heard, forward = [], MuQMuLanNet.forward

    def counted(net: MuQMuLanNet, clips: torch.Tensor) -> torch.Tensor:
        heard.append(len(clips))
        return forward(net, clips)

    monkeypatch.setattr(MuQMuLanNet, "forward", counted)
    found = MuQ(str(folder()), batch_size).embed(Audio(sound(140), RATE), SEGMENTS)
    reference = np.load(DATA / "vectors.npz")
    expected = [reference[f"last_window{start}"] for start in (0, 15, 20)]
    np.testing.assert_allclose(found.segments, expected, atol=1e-4)
    np.testing.assert_allclose(found.track, np.mean(expected, axis=0), atol=1e-4)
    assert np.abs(expected[0] - expected[2]).max() > 1e-3  # windows can be told apart
    assert heard == sizes


def test_a_track_at_another_rate_is_resampled_and_not_filled_with_silence(folder: Folder) -> None:
    teacher = MuQ(str(folder()))
    audio = Audio(Audio(sound(12), RATE).resampled(44_100), 44_100)
    found = teacher.embed(audio, SEGMENTS).segments
    samples = audio.resampled(RATE)
    np.testing.assert_array_equal(found, _heard(teacher, samples))
    silent = np.concatenate([samples, np.zeros(CLIP * 3, np.float32)])
    assert np.abs(_heard(teacher, silent) - found).max() > 1e-3  # as upstream would hear it


def test_less_than_a_second_is_bad_audio(folder: Folder) -> None:
    with pytest.raises(BadAudio, match=r"too short: 0\.90 s; MuQ needs at least 1 s"):
        _heard(MuQ(str(folder())), sound(0.9))


def test_the_id_changes_with_weights_and_configurations(folder: Folder, tmp_path: Path) -> None:
    model = folder()
    ids = {MuQ(str(model)).id, MuQ(str(model)).id}
    assert len(ids) == 1 and next(iter(ids)).startswith("muq-")
    tensors = safetensors.torch.load_file(model / "model.safetensors")
    tensors["mulan.audio_to_latents.bias"] += 1
    safetensors.torch.save_file(tensors, model / "model.safetensors")
    ids.add(MuQ(str(model)).id)
    within = tmp_path / "muq-tiny" / "config.json"
    within.write_text(within.read_text().replace("6.76", "7.76"))  # the mean of the mel
    ids.add(MuQ(str(model)).id)
    assert len(ids) == 3


def test_nothing_is_loaded_before_something_is_heard(folder: Folder) -> None:
    model = folder()
    (model / "model.safetensors").write_bytes(b"not read yet")
    teacher = MuQ(str(model))
    assert teacher.dim == 12
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read .*: fetch the model again"):
        _heard(teacher, sound(2))


def test_other_models_are_refused(folder: Folder, tmp_path: Path) -> None:
    for changes in ({"audio_model": {"name": "m-a-p/MERT-v1-330M"}}, {"mulan": {"sr": 16_000}}, {"mulan": 1}):
        with pytest.raises(UserError, match=r"describes no MuQ-MuLan that hears clips of 10 s at 24000 Hz"):
            MuQ(str(folder(**changes)))
    with pytest.raises(UserError, match=r"config\.json beside .* describes no MuQ-MuLan \('dim'\)"):
        _heard(MuQ(str(folder(audio_transformer={}))), sound(2))
    model = folder()
    tensors = safetensors.torch.load_file(model / "model.safetensors")
    safetensors.torch.save_file(
        {name: one for name, one in tensors.items() if name != "mulan.audio.proj.weight"},
        model / "model.safetensors",
    )
    with pytest.raises(UserError, match=r"is no MuQ-MuLan: it has nothing at mulan\.audio\.proj\.weight"):
        _heard(MuQ(str(model)), sound(2))
    shutil.rmtree(tmp_path / "muq-tiny")
    with pytest.raises(UserError, match=r"no folder .*muq-tiny with the files of the MuQ in MuQ-MuLan"):
        MuQ(str(model))


def test_a_batch_holds_a_clip(folder: Folder) -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        MuQ(str(folder()), batch_size=0)
