"""A stand-in for the package `music2latent` 0.1.8, which is not installed here.

It is no Music2Latent: its encoder is one matrix. Names, shapes, lengths and refusals are those of the real
package's encoding, as read in its source and seen when it ran with random weights.
"""

import sys
import warnings
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

CHANNELS, FRAME, PER_LATENT = 64, 512, 8
RATE = 44_100


class Encoder(nn.Module):
    """Eight frames become one latent; a frame is two numbers in each of 1,024 bands."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(2 * FRAME * PER_LATENT, CHANNELS, bias=False)

    def forward(self, frames_B2FT: Tensor, extract_features: bool = False) -> Tensor:
        assert not extract_features
        b, _, _, n = frames_B2FT.shape
        grouped = frames_B2FT.reshape(b, 2 * FRAME, n // PER_LATENT, PER_LATENT).permute(0, 2, 1, 3)
        latents: Tensor = self.project(grouped.reshape(b, n // PER_LATENT, -1)).transpose(1, 2)
        return latents


@torch.no_grad()
def encode_audio_inference(
    audio: Any,
    trainer: SimpleNamespace,
    max_waveform_length_encode: int,
    max_batch_size_encode: int,
    device: str = "cuda",
    extract_features: bool = False,
) -> Tensor:
    """Latents [audio_channels, 64, length] of a waveform [samples], or [audio_channels, samples]."""
    if vars(sys.modules["music2latent.inference"])["mixed_precision"]:
        warnings.warn("CUDA is not available or torch_xla is imported. Disabling autocast.", stacklevel=2)
    trainer.gen = trainer.gen.to(device)
    trainer.gen.eval()
    waveform = torch.from_numpy(np.atleast_2d(audio)).to(device)
    if waveform.dtype != torch.float32:
        raise RuntimeError(f"expected scalar type Float but found {waveform.dtype}")
    n_latents = ((waveform.shape[-1] - 3 * FRAME) // FRAME) // PER_LATENT
    if n_latents < 1:
        raise RuntimeError(f"maximum size for tensor at dimension 1 is {3 * FRAME} but size is {4 * FRAME}")
    cut = waveform[:, : n_latents * PER_LATENT * FRAME]
    frames = cut.reshape(len(cut), -1, FRAME).transpose(1, 2)
    pieces = torch.stack([frames, frames**2], 1).split(
        max_waveform_length_encode // FRAME // PER_LATENT * PER_LATENT, dim=-1
    )
    assert max_batch_size_encode >= 1
    return torch.cat([trainer.gen.encoder(piece) for piece in pieces], -1)


class EncoderDecoder:
    """The package's own class, which no one may use here: it fetches weights, and unpickles them."""

    def __init__(self, load_path_inference: object = None, device: object = None) -> None:
        raise AssertionError("the network was asked for weights")


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the stand-in where `import music2latent` finds it."""
    contents: dict[str, dict[str, Any]] = {
        "music2latent": {"EncoderDecoder": EncoderDecoder},
        "music2latent.models": {"Encoder": Encoder},
        "music2latent.inference": {
            "encode_audio_inference": encode_audio_inference,
            "EncoderDecoder": EncoderDecoder,
            "mixed_precision": True,
        },
    }
    for name, content in contents.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, loader=None)
        module.__path__ = []
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)


def write_weights(folder: Path) -> Path:
    """The folder of a file laid out as music2latent.pt, for the stand-in's encoder."""
    torch.manual_seed(0)
    state = {f"encoder.{name}": value for name, value in Encoder().state_dict().items()}
    torch.save(
        {"gen_state_dict": state | {"decoder.conv.weight": torch.zeros(2)}, "loss": np.float64(0.1)},
        folder / "music2latent.pt",
    )
    return folder
