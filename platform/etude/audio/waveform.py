"""The waveform that features are computed from."""

import numpy as np
from numpy.typing import NDArray

from etude.audio.decode import Audio
from etude.audio.recipe import FeatureRecipe

_INT16_MAX = np.float32(32_767)


def prepare_waveform(audio: Audio, recipe: FeatureRecipe) -> NDArray[np.float32]:
    """Samples [n] at the recipe's rate, clipped to [-1, 1] and in 16-bit steps if the recipe says so.

    The steps are rounded towards zero, as the teachers' production code does (facts/audiomuse.md, b).
    """
    resampled = audio.resampled(recipe.sample_rate)
    own = None if resampled is audio.samples else resampled  # the caller's samples stay as they are
    waveform = np.clip(resampled, -1.0, 1.0, out=own)
    if recipe.quantise == "int16":
        waveform *= _INT16_MAX
        np.trunc(waveform, out=waveform)
        waveform /= _INT16_MAX
    return waveform
