"""White noise as a mel hears it, without going back to the waveform.

White noise of variance v under a window w has power v sum(w^2) in every bin of the spectrum, so in a band
that times the sum of the band's filter. The waveform's own power is had back from the mel by Parseval's
theorem, which has the same sum(w^2) in it: only their ratio is needed here.
"""

import math
from functools import lru_cache

import numpy as np
import scipy.optimize
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional

from etude.audio.mel import mel_basis
from etude.audio.recipe import FeatureRecipe

_DB_TO_LOG = math.log(10.0) / 10.0
# Squared correlation of the bins of white noise, 0, 1 and 2 apart, under a Hann window, whose spectrum is
# 1/2 in its own bin and -1/4 in its neighbours.
_HANN_CORRELATION = (1.0, (2 / 3) ** 2, (1 / 6) ** 2)


def add_white_noise(mel: Tensor, snr_B: Tensor, generator: Generator, recipe: FeatureRecipe) -> Tensor:
    """Mels [b, n_mels, n_frames] in dB with white noise `snr_B` [b] dB under each item's mean power.

    Powers add. The noise's power fluctuates in every band as white noise does that passes its filter, and
    from frame to frame independently, although real frames overlap. Music above the recipe's fmax is not
    in the mel and does not count; an item that is silent all over gets no noise, and stays so.
    """
    to_power, noise_share, shape = (torch.from_numpy(array).to(mel) for array in _bands(recipe))
    # exp and log take a fraction of the time of powers of ten.
    power = functional.threshold(mel, recipe.floor_db, -math.inf).mul_(_DB_TO_LOG).exp_()
    mean = power.mean(dim=2) @ to_power
    noise = mean * (-_DB_TO_LOG * snr_B.to(mel)).exp()
    normal = torch.randn(mel.shape, generator=generator, device=generator.device).to(mel)
    power += _gamma(shape[:, None], normal).mul_((noise[:, None] * noise_share)[:, :, None])
    return power.clamp_min_(math.exp(_DB_TO_LOG * recipe.floor_db)).log_().div_(_DB_TO_LOG)


def _gamma(shape: Tensor, normal: Tensor) -> Tensor:
    """Normal numbers turned into Gamma ones of mean 1 and variance 1 / shape.

    The cube root of a Gamma number is nearly normal (Wilson and Hilferty, 1931), from shape 1 upwards well
    enough: exponential numbers come out with mean 0.999.
    """
    variance = 1.0 / (9.0 * shape)
    root = (normal * variance.sqrt()).add_(1.0 - variance).clamp_min_(0.0)
    return root * root * root


@lru_cache
def _bands(recipe: FeatureRecipe) -> tuple[NDArray[np.float32], ...]:
    """For every band [n_mels] of a recipe:

    the weight with which mel powers of a frame add up to the waveform's mean power, but for 1 / sum(w^2);
    the mel power of white noise of variance 1, but for sum(w^2);
    the mean of that power over its standard deviation, squared.
    """
    basis = mel_basis(recipe.sample_rate, recipe.n_fft, recipe.n_mels, recipe.fmin, recipe.fmax)
    heard = basis[:, basis.any(axis=0)]
    # The filters overlap so that, weighed by their widths, they hear every bin equally.
    widths, _ = scipy.optimize.nnls(heard.T, np.ones(heard.shape[1]))
    to_power = 2.0 / recipe.n_fft * widths  # each bin stands for its mirror image too
    kernel = np.array([*_HANN_CORRELATION[:0:-1], *_HANN_CORRELATION])
    variance = [row @ np.convolve(row, kernel, mode="same") for row in basis]
    sums = basis.sum(axis=1)
    shape = np.divide(sums**2, variance, out=np.ones_like(sums), where=sums > 0)
    return tuple(array.astype(np.float32) for array in (to_power, sums, shape))
