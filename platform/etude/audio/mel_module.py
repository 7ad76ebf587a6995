"""The front end as plain tensor operations, so that it can live inside an ONNX file."""

import numpy as np
import torch
from scipy.signal import get_window
from torch import Tensor, nn

from etude.audio.mel import mel_basis
from etude.audio.recipe import FeatureRecipe


class WaveformMel(nn.Module):
    """48 kHz segments [b, segment_samples] to decibels [b, n_mels, n_frames].

    The Fourier transform is a convolution with windowed cosines and sines: ONNX Runtime runs it everywhere,
    which its STFT operator does not. Rounding to 16 bits is part of it, so a caller passes what it decoded.
    """

    basis: Tensor
    mel: Tensor

    def __init__(self, recipe: FeatureRecipe) -> None:
        super().__init__()
        self._recipe = recipe
        mel = mel_basis(recipe.sample_rate, recipe.n_fft, recipe.n_mels, recipe.fmin, recipe.fmax)
        used = int(np.flatnonzero(mel.any(axis=0))[-1]) + 1
        phase = 2 * np.pi * np.outer(np.arange(used), np.arange(recipe.n_fft)) / recipe.n_fft
        window = get_window("hann", recipe.n_fft)
        basis = np.concatenate([np.cos(phase), np.sin(phase)]) * window  # [2 * used, n_fft]
        self.register_buffer("basis", torch.from_numpy(basis.astype(np.float32))[:, None, :])
        self.register_buffer("mel", torch.from_numpy(mel[:, :used].astype(np.float32)))

    def forward(self, waveform: Tensor) -> Tensor:
        recipe = self._recipe
        x = waveform.clamp(-1.0, 1.0)
        if recipe.quantise == "int16":
            x = torch.trunc(x * 32767.0) / 32767.0
        half = recipe.n_fft // 2
        x = nn.functional.pad(x[:, None, :], (half, half), mode=recipe.pad_mode)
        spectrum = nn.functional.conv1d(x, self.basis, stride=recipe.hop_length)
        real, imaginary = spectrum.chunk(2, dim=1)
        power = self.mel @ (real.square() + imaginary.square())
        return 10.0 * torch.log10(power.clamp_min(10 ** (recipe.floor_db / 10)))
