"""A recording as 128 named numbers, the input of the emotion recogniser.

Every one is heard in the samples and none is made of another by a sum: no place is filled up, and no label is
among them. Their names say what they are; units stand beside the names in `audio_timbre.py`,
`audio_tonality.py` and `audio_rhythm.py`.
"""

import numpy as np
from numpy.typing import NDArray

from etude.emotion.audio_rhythm import RHYTHM, rhythm
from etude.emotion.audio_timbre import TIMBRE, timbre
from etude.emotion.audio_tonality import TONALITY, tonality
from etude.emotion.spectra import SAMPLE_RATE, spectra_of

__all__ = ["FEATURES", "SAMPLE_RATE", "audio_features"]

FEATURES: tuple[str, ...] = (*TIMBRE, *TONALITY, *RHYTHM)


def audio_features(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The features [128], in the order of `FEATURES`, of mono samples [n] at 22,050 Hz; always finite.

    They are means and spreads over time, meant for windows of some seconds up to a piece; from less than a
    second little can be said of rhythm.
    """
    spectra = spectra_of(samples)
    found = timbre(spectra) | tonality(spectra) | rhythm(spectra)
    assert tuple(found) == FEATURES
    features = np.array(list(found.values()), np.float32)
    assert np.isfinite(features).all()
    return features
