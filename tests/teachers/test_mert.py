"""MERT's vectors are the means of a HuBERT's states, with files laid out as MERT's and random weights.

The published weights cannot be had here. Names and keys are theirs; the network is Transformers' HuBERT.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.audio.decode import Audio
from etude.audio.segment import Segments
from etude.audio.torchaudio_cpu import import_torchaudio
from etude.errors import BadAudio, UserError
from etude.sources.base import Track
from etude.teachers import MertConfig, Teacher, build_teacher
from etude.teachers.mert import Mert

import_torchaudio()
from transformers import HubertConfig, HubertModel

RATE, LAYERS, WIDTH = 24_000, 3, 32
SEGMENTS = Segments((0,), 480_000, 48_000)
Folder = Callable[..., Path]


def _network(stable: bool) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
    convolutions = {"conv_dim": [8] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    norm = {"do_stable_layer_norm": stable, "feat_extract_norm": "layer" if stable else "group"}
    net = HubertModel(HubertConfig(**sizes, **convolutions, **norm, intermediate_size=40)).eval()
    with torch.no_grad():
        for one in net.parameters():
            one += 0.1 * torch.randn_like(one)
    return net


@pytest.fixture(scope="module", params=[True, False], ids=["as 330M", "as 95M"])
def network(request: pytest.FixtureRequest) -> Any:
    """A HuBERT with the norm before the layers, as in MERT-v1-330M, or behind them."""
    return _network(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """folder(network, **changes of its config.json) -> MERT's files, with the old names of PyTorch."""

    def made(network: Any, **changes: Any) -> Path:
        tensors = {
            name.replace("parametrizations.weight.original0", "weight_g").replace(
                "parametrizations.weight.original1", "weight_v"
            ): one
            for name, one in network.state_dict().items()
        }
        torch.save(tensors, tmp_path / "pytorch_model.bin")
        theirs = {
            "model_type": "mert_model",
            "architectures": ["MERTModel"],
            "auto_map": {"AutoModel": "modeling_MERT.MERTModel"},
            "attention_relax": 32.0,
            "feature_extractor_cqt": False,
            "deepnorm": False,
        }
        config = network.config.to_dict() | theirs | changes
        (tmp_path / "config.json").write_text(json.dumps(config))
        front_end = {"do_normalize": True, "feature_size": 1, "padding_value": 0, "sampling_rate": RATE}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(front_end))
        return tmp_path

    return made


def _music(seconds: float) -> NDArray[np.float32]:
    time = np.arange(round(RATE * seconds)) / RATE
    noise = np.random.default_rng(0).standard_normal(len(time))
    return np.asarray(0.1 + 0.2 * np.sin(2 * np.pi * 220 * time * (1 + time / 60)) + 0.01 * noise, np.float32)


def _by_hooks(network: Any, window: NDArray[np.float32]) -> NDArray[np.float64]:
    """The vector of one window: what goes into each layer, and what leaves the network."""
    states: list[Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, given: states.append(given[0].clone()))
        for layer in network.encoder.layers
    ]
    normed = (window - window.mean()) / np.sqrt(window.var() + 1e-7)
    with torch.no_grad():
        states.append(network(torch.from_numpy(normed)[None]).last_hidden_state)
    for hook in hooks:
        hook.remove()
    return np.concatenate([state[0].numpy().astype(np.float64).mean(axis=0) for state in states])


def _heard(teacher: Teacher, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return teacher.embed(Audio(samples, RATE), SEGMENTS, Track("", "", "")).segments


def test_a_vector_is_the_means_of_all_states(network: Any, folder: Folder) -> None:
    teacher = build_teacher(MertConfig(weights=str(folder(network))))
    samples = _music(3)
    (found,) = _heard(teacher, samples)
    np.testing.assert_allclose(found, _by_hooks(network, samples), atol=1e-5)
    assert teacher.dim == len(found) == (LAYERS + 1) * WIDTH
    assert (teacher.normalized, teacher.license) == (False, "CC-BY-NC-4.0")
    assert teacher.id.startswith("mert-")


def test_a_batch_of_windows_of_30_s_gives_what_each_gives_alone(folder: Folder) -> None:
    network = _network(True)
    teacher = Mert(str(folder(network)), batch_size=2)
    samples = _music(38)
    expected = [_by_hooks(network, samples[RATE * start : RATE * (start + 30)]) for start in (0, 5, 8)]
    found = teacher.embed(Audio(samples, RATE), SEGMENTS)
    np.testing.assert_allclose(found.segments, expected, atol=1e-5)
    np.testing.assert_allclose(found.track, np.mean(expected, axis=0), atol=1e-5)


def test_weights_may_lie_in_a_file_of_safetensors(folder: Folder) -> None:
    network = _network(True)
    model = folder(network)
    expected = _heard(Mert(str(model)), _music(2))
    network.save_pretrained(model / "saved", safe_serialization=True)
    (model / "pytorch_model.bin").unlink()
    (model / "saved" / "model.safetensors").rename(model / "model.safetensors")
    np.testing.assert_allclose(_heard(Mert(str(model)), _music(2)), expected, atol=1e-6)


@pytest.mark.parametrize("beyond", ["feature_extractor_cqt", "deepnorm"])
def test_what_would_need_the_models_own_code_is_refused(folder: Folder, beyond: str) -> None:
    with pytest.raises(UserError, match=f"sets {beyond}, for which MERT's own code would have"):
        Mert(str(folder(_network(True), **{beyond: True})))


def test_code_in_the_weights_or_beside_them_is_not_executed(folder: Folder, tmp_path: Path) -> None:
    model = folder(_network(True))
    (model / "modeling_MERT.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    _heard(Mert(str(model)), _music(1))
    torch.save({"optimizer": _Harmful(tmp_path)}, model / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled code, which is never executed"):
        _heard(Mert(str(model)), _music(1))
    assert not (tmp_path / "executed").exists()


class _Harmful:
    """Pickled, it creates a file when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "executed"

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_other_files_are_refused(folder: Folder) -> None:
    network = _network(True)
    model = folder(network, num_hidden_layers=4)
    with pytest.raises(UserError, match=r"is no MERT: it has nothing at encoder\.layers\.3"):
        _heard(Mert(str(model)), _music(1))
    with pytest.raises(UserError, match="describes no HuBERT"):
        _heard(Mert(str(folder(network, conv_kernel=[3]))), _music(1))
    with pytest.raises(UserError, match="describes no MERT"):
        Mert(str(folder(network, hidden_size=None)))
    front_end = folder(network) / "preprocessor_config.json"
    front_end.write_text('{"sampling_rate": 16000}')
    with pytest.raises(UserError, match="does not ask for 24000 Hz, as MERT does"):
        Mert(str(front_end.parent))
    front_end.unlink()
    with pytest.raises(UserError, match=r"it has no file preprocessor_config\.json; fetch it again"):
        Mert(str(front_end.parent))


def test_a_tenth_of_a_second_is_enough_and_less_is_bad_audio(folder: Folder) -> None:
    teacher = Mert(str(folder(_network(True))))
    assert np.isfinite(_heard(teacher, _music(0.1))).all()
    with pytest.raises(BadAudio, match=r"too short: 0\.09 s; MERT needs at least 0\.1 s"):
        _heard(teacher, _music(0.09))
