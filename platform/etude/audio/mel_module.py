"""The front end as plain tensor operations, so that it can live inside an ONNX file.

ONNX Runtime's own Fourier transform is not there everywhere, and a convolution with all cosines and sines at
once costs several times what a small student does. So the transform is done in the two steps of Cooley and
Tukey (1965), a convolution and a matrix product. A frame's n_fft samples are counted as P q + p and its
frequencies as l + Q h, with P Q = n_fft and P the greatest number of which the hop is a multiple too:

    A[p, l]    = sum over q of  x[P q + p] window exp(-2 pi i l (P q + p) / n_fft)
    X[l + Q h] = sum over p of  A[p, l] exp(-2 pi i h p / P)

The samples are real, so l up to Q / 2 is enough: X[n_fft - k] has the power of X[k].
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from etude.audio.mel import hann, mel_basis
from etude.audio.recipe import FeatureRecipe


class WaveformMel(nn.Module):
    """48 kHz segments [b, segment_samples] to decibels [b, n_mels, n_frames].

    Rounding to 16 bits is part of it, so a caller passes what it decoded.
    """

    first: Tensor  # [P x 2 x n_low, 1, Q]: real and imaginary parts of A
    second: Tensor  # [2 x n_high, P x 2]: real and imaginary parts of X from those of A
    mel: Tensor  # [n_mels, n_high x n_low]

    def __init__(self, recipe: FeatureRecipe) -> None:
        super().__init__()
        self._recipe = recipe
        n_fft = recipe.n_fft
        self._n_phases = n_phases = math.gcd(n_fft, recipe.hop_length)
        n_taps = n_fft // n_phases
        self._n_low = n_taps // 2 + 1
        mel = mel_basis(recipe.sample_rate, n_fft, recipe.n_mels, recipe.fmin, recipe.fmax)
        n_used = int(np.flatnonzero(mel.any(axis=0))[-1]) + 1

        low = np.arange(self._n_low)
        sample = np.arange(n_phases)[:, None] + n_phases * np.arange(n_taps)  # [p, q]
        turns = low[None, :, None] * sample[:, None, :] % n_fft / n_fft  # [p, l, q]
        first = np.exp(-2j * np.pi * turns) * hann(n_fft)[sample][:, None, :]

        # Every frequency that a filter hears stands once: at its own place, or at its mirror image's.
        bins = low + n_taps * np.arange(n_phases)[:, None]  # [h, l]
        folded = np.minimum(bins, n_fft - bins)
        high = np.flatnonzero((folded < n_used).any(axis=1))
        folded = folded[high].ravel()
        once = np.zeros(len(folded), bool)
        once[np.unique(folded, return_index=True)[1]] = True
        heard = np.where(once & (folded < n_used), mel[:, folded], 0.0)

        second = np.exp(-2j * np.pi * (np.outer(high, np.arange(n_phases)) % n_phases) / n_phases)  # [h, p]
        real = np.stack([second.real, -second.imag], axis=2).reshape(len(high), -1)
        imaginary = np.stack([second.imag, second.real], axis=2).reshape(len(high), -1)
        self.register_buffer("first", _float32(np.stack([first.real, first.imag], 1).reshape(-1, 1, n_taps)))
        self.register_buffer("second", _float32(np.concatenate([real, imaginary])))
        self.register_buffer("mel", _float32(heard))

    def forward(self, waveform: Tensor) -> Tensor:
        recipe, n_phases, n_low = self._recipe, self._n_phases, self._n_low
        x = waveform.clamp(-1.0, 1.0)
        if recipe.quantise == "int16":
            x = torch.trunc(x * 32767.0) / 32767.0
        half = recipe.n_fft // 2
        x = nn.functional.pad(x[:, None, :], (half, half), mode=recipe.pad_mode)[:, 0]
        n_samples = (recipe.n_frames - 1) * recipe.hop_length + recipe.n_fft
        phases = x[:, :n_samples].reshape(x.shape[0], n_samples // n_phases, n_phases).transpose(1, 2)
        stride = recipe.hop_length // n_phases
        a = nn.functional.conv1d(phases, self.first, stride=stride, groups=n_phases)  # [b, P x 2 x n_low, t]
        # [b, 2 x n_high, n_low x t]
        spectrum = self.second @ a.reshape(x.shape[0], 2 * n_phases, n_low * recipe.n_frames)
        real, imaginary = spectrum.chunk(2, dim=1)
        power = (real.square() + imaginary.square()).reshape(x.shape[0], -1, recipe.n_frames)
        return 10.0 * torch.log10((self.mel @ power).clamp_min(10 ** (recipe.floor_db / 10)))


def _float32(array: NDArray[np.floating]) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))
