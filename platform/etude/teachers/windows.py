"""Where a heavy model's own windows are cut: on a grid, full of music and never of silence.

Upstream fills a short track with zeros up to a whole window, so that of 10 s of music in a window of 120 s
eleven twelfths of the vector describe silence (facts/projection_and_emotion.md, a). That is not offered here.
"""

import numpy as np
from numpy.typing import NDArray

from etude.audio.segment import Segments
from etude.teachers.base import Targets


def windows_of(n_samples: int, sample_rate: int, window_s: float, hop_s: float) -> Segments:
    """The windows of a waveform of `n_samples` at `sample_rate` Hz; `Segments.cut` cuts them.

    Up to one window long, a waveform is one window of its own length. A longer one has a full window at
    every hop that fits, and where these leave samples at its end, one more full window that ends with it.
    Raises ValueError for a waveform without samples, or a hop beyond the window, which would skip some.
    """
    length, hop = round(window_s * sample_rate), round(hop_s * sample_rate)
    if n_samples < 1:
        raise ValueError(f"a waveform of {n_samples} samples has no windows")
    if not 1 <= hop <= length:
        raise ValueError(f"windows of {window_s:g} s every {hop_s:g} s would leave music out")
    if n_samples <= length:
        return Segments((0,), n_samples, sample_rate)
    last = n_samples - length
    tail = (last,) if last % hop else ()
    return Segments((*range(0, last + 1, hop), *tail), length, sample_rate)


def window_targets(windows_WD: NDArray[np.float32]) -> Targets:
    """Vectors [n_windows, width] as targets: themselves, and for the track their mean [width]."""
    exact_D = windows_WD.mean(axis=0, dtype=np.float64)
    return Targets(np.asarray(windows_WD, np.float32), exact_D.astype(np.float32))
