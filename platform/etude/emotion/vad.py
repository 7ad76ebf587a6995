"""A feeling as four numbers, and as the 64 that networks take in and give out.

The embedding is facts b's (facts/projection_and_emotion.md) times a factor that keeps it inside a tanh. It is
linear: four quarters of 16 numbers, each turning two of the four around a circle.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from etude.errors import UserError


class VAD(NamedTuple):
    """Valence in -1..1; arousal, dominance and intensity in 0..1."""

    valence: float
    arousal: float
    dominance: float
    intensity: float


LOWEST = VAD(-1.0, 0.0, 0.0, 0.0)
HIGHEST = VAD(1.0, 1.0, 1.0, 1.0)
EMBEDDING = 64
_QUARTER = EMBEDDING // 4
# Unscaled, valence and arousal of 1 meet at the square root of 2: with this no number exceeds 0.943.
_SCALE = 2 / 3


def checked(vad: VAD, where: str) -> VAD:
    """The same, as plain numbers. Raises UserError, which says `where`, for what lies outside its range."""
    for name, value, low, high in zip(VAD._fields, vad, LOWEST, HIGHEST, strict=True):
        if not low <= value <= high:  # true for nan as well
            raise UserError(f"{where}: {name} must lie between {low:g} and {high:g}, not {value:g}")
    return VAD(*map(float, vad))


def clipped(vad_N4: NDArray[np.floating]) -> NDArray[np.float64]:
    """Every row [n, 4] moved into the ranges."""
    return np.clip(np.asarray(vad_N4, np.float64), LOWEST, HIGHEST)


def embed(vad_N4: NDArray[np.floating]) -> NDArray[np.float32]:
    """The embedding [n, 64] of rows [n, 4] within their ranges; every number lies inside -0.943..0.943."""
    return (np.asarray(vad_N4, np.float64) @ _BASIS).astype(np.float32)


def decode(embedding_N64: NDArray[np.floating]) -> NDArray[np.float64]:
    """The rows [n, 4] that fit embeddings [n, 64] best by least squares, moved into the ranges.

    What `embed` made is decoded exactly, up to the rounding of 32-bit floats.
    """
    return clipped(np.asarray(embedding_N64, np.float64) @ _INVERSE)


def _basis() -> NDArray[np.float64]:
    """[4, 64]: what each of the four adds to every number of the embedding."""
    angle = 2 * np.pi * np.arange(_QUARTER) / _QUARTER
    cosine, sine, nothing = np.cos(angle), np.sin(angle), np.zeros(_QUARTER)
    rows = (
        (cosine, nothing, nothing, sine / 2),  # valence
        (sine, cosine, nothing, sine / 2),  # arousal
        (nothing, sine, cosine, nothing),  # dominance
        (nothing, nothing, sine, cosine),  # intensity
    )
    return _SCALE * np.array([np.concatenate(row) for row in rows])


_BASIS = _basis()
_INVERSE = np.linalg.pinv(_BASIS)
