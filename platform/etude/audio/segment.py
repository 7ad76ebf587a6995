"""Where a track is cut: ten-second segments every five seconds, and the last ten always."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etude.audio.recipe import FeatureRecipe


@dataclass(frozen=True)
class Segments:
    """Starts and common length of a track's segments, in samples at `sample_rate` Hz."""

    starts: tuple[int, ...]
    length: int
    sample_rate: int

    def __len__(self) -> int:
        return len(self.starts)

    def cut(self, samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
        """The segments [n_segments, length at `sample_rate`] of samples [n] at any rate in Hz.

        Starts and length are scaled to that rate and rounded; past the end of the track stand zeros.
        """
        scale = sample_rate / self.sample_rate
        length = round(self.length * scale)
        segments = np.zeros((len(self), length), np.float32)
        for row, start in zip(segments, self.starts, strict=True):
            part = samples[round(start * scale) :][:length]
            row[: len(part)] = part
        return segments


def segments_of(n_samples: int, recipe: FeatureRecipe) -> Segments:
    """The segments of a track of `n_samples` at the recipe's rate (facts/audiomuse.md, b).

    Up to one segment long, a track is one segment, padded with zeros. A longer one has a segment at every
    hop that fits, and then always the last `segment_samples`, even where they repeat the segment before.
    Raises ValueError for a track without samples.
    """
    if n_samples < 1:
        raise ValueError(f"a track of {n_samples} samples has no segments")
    length, hop = recipe.segment_samples, recipe.hop_samples
    if n_samples <= length:
        return Segments((0,), length, recipe.sample_rate)
    last = n_samples - length
    return Segments((*range(0, last + 1, hop), last), length, recipe.sample_rate)
