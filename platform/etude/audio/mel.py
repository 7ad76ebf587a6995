"""Log-mel spectrograms on the CPU, equal to librosa's, each shared frame computed and stored once.

The segment hop is a whole number of frames, so neighbouring segments share all frames that do not reach
over a segment's end. That halves both the work and the storage (facts/measured.md, "Audio").
"""

from functools import lru_cache

import numpy as np
import scipy.fft
import scipy.sparse
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from etude.audio.recipe import FeatureRecipe
from etude.audio.segment import segments_of
from etude.audio.track_mel import Layout, TrackMel, layout_of

__all__ = ["TrackMel", "log_mel", "mel_basis", "segment_mel"]

_TINY = np.finfo(np.float32).tiny  # has a logarithm; silence has none
_LOG_TO_DB = np.float32(10.0 / np.log(10.0))
_FRAMES_AT_ONCE = 128  # their spectra, 1 MB, stay in the processor's cache


def log_mel(waveform: NDArray[np.float32], recipe: FeatureRecipe) -> TrackMel:
    """The stored mel of a track, in dB, from its prepared waveform [n] at the recipe's rate."""
    layout = layout_of(len(waveform), recipe)
    segments = segments_of(len(waveform), recipe)
    padded = waveform
    if len(waveform) < recipe.segment_samples:
        padded = np.zeros(recipe.segment_samples, np.float32)
        padded[: len(waveform)] = waveform

    frames = np.empty((layout.n_stored, recipe.n_mels), np.float32)
    first = layout.n_left * recipe.hop_length - recipe.n_fft // 2
    _power_db(_framed(padded[first:], recipe)[: layout.n_shared], recipe, out=frames[: layout.n_shared])

    left, right = _edge_samples(layout, recipe)
    for start, edge in zip(segments.starts[: layout.n_grid], _edge_frames(layout, frames), strict=True):
        _power_db(_framed(padded[start + left], recipe), recipe, out=edge[: layout.n_left])
        _power_db(_framed(padded[start + right], recipe), recipe, out=edge[layout.n_left :])

    if layout.has_tail:
        frames[layout.n_shared + layout.n_edges :] = segment_mel(
            padded[None, -recipe.segment_samples :], recipe
        )[0].T
    return TrackMel(frames, len(waveform), recipe)


def segment_mel(waveforms: NDArray[np.float32], recipe: FeatureRecipe) -> NDArray[np.float32]:
    """The mels [b, n_mels, n_frames] in dB of waveforms [b, segment_samples], each on its own."""
    mels = np.empty((len(waveforms), recipe.n_mels, recipe.n_frames), np.float32)
    for waveform, mel in zip(waveforms, mels, strict=True):
        padded = np.pad(waveform, recipe.n_fft // 2, mode=recipe.pad_mode)
        _power_db(_framed(padded, recipe)[: recipe.n_frames], recipe, out=mel.T)
    return mels


def mel_basis(sample_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float) -> NDArray[np.float32]:
    """Triangular filters [n_mels, n_fft // 2 + 1] on Slaney's scale, each of area 1 over Hz; rates in Hz.

    The scale is linear to 1,000 Hz, 200/3 Hz a mel, and then logarithmic, 27 mels for a factor of 6.4
    (Slaney, Auditory Toolbox, 1998).
    """
    mels = np.linspace(_hz_to_mel(fmin), _hz_to_mel(fmax), n_mels + 2)
    corners = np.where(mels < 15.0, mels * (200 / 3), 1000.0 * 6.4 ** ((mels - 15.0) / 27.0))
    lower, centre, upper = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    hz = np.fft.rfftfreq(n_fft, 1.0 / sample_rate)
    triangles = np.minimum((hz - lower) / (centre - lower), (upper - hz) / (upper - centre))
    basis: NDArray[np.float32] = (np.maximum(triangles, 0.0) * 2.0 / (upper - lower)).astype(np.float32)
    return basis


def _hz_to_mel(hz: float) -> float:
    return hz * 3 / 200 if hz < 1000.0 else 15.0 + 27.0 * float(np.log(hz / 1000.0) / np.log(6.4))


def hann(n: int) -> NDArray[np.float64]:
    """The periodic Hann window [n]."""
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(n) / n)


@lru_cache
def _window_and_filters(recipe: FeatureRecipe) -> tuple[NDArray[np.float32], scipy.sparse.csr_array]:
    """Periodic Hann window [n_fft], and the filters [n_mels, n_bins] without the bins that none hears.

    A bin lies in two filters at most, so a sparse product is a few times faster than a dense one, and it
    starts no threads, which would fight with those of other processes.
    """
    window = hann(recipe.n_fft)
    basis = mel_basis(recipe.sample_rate, recipe.n_fft, recipe.n_mels, recipe.fmin, recipe.fmax)
    n_bins = int(np.flatnonzero(basis.any(axis=0))[-1]) + 1
    return window.astype(np.float32), scipy.sparse.csr_array(basis[:, :n_bins])


def _framed(samples: NDArray[np.float32], recipe: FeatureRecipe) -> NDArray[np.float32]:
    """All whole frames [k, n_fft] of samples [n], as a view."""
    return sliding_window_view(samples, recipe.n_fft)[:: recipe.hop_length]


def _edge_samples(layout: Layout, recipe: FeatureRecipe) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices into a segment of the samples under its first and its last frames, reflected at its ends."""
    half, hop, last = recipe.n_fft // 2, recipe.hop_length, recipe.segment_samples - 1
    left = np.abs(np.arange(-half, (layout.n_left - 1) * hop + half))
    first_right = (layout.n_frames - layout.n_right) * hop
    right = last - np.abs(last - np.arange(first_right - half, (layout.n_frames - 1) * hop + half))
    return left, right


def _edge_frames(layout: Layout, frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """The stored edge frames [n_grid, n_left + n_right, n_mels], as a view."""
    edges = frames[layout.n_shared : layout.n_shared + layout.n_edges]
    return edges.reshape(layout.n_grid, layout.n_left + layout.n_right, -1)


def _power_db(framed: NDArray[np.float32], recipe: FeatureRecipe, out: NDArray[np.float32]) -> None:
    """Write the mels in dB of frames [k, n_fft] to out [k, n_mels], a chunk at a time to stay in cache."""
    window, filters = _window_and_filters(recipe)
    n_bins = filters.shape[1]
    for start in range(0, len(framed), _FRAMES_AT_ONCE):
        chunk = framed[start : start + _FRAMES_AT_ONCE] * window
        spectrum = scipy.fft.rfft(chunk, axis=1, overwrite_x=True, workers=1)[:, :n_bins]
        power = spectrum.real**2
        power += spectrum.imag**2
        mel = (filters @ power.T).T
        np.maximum(mel, _TINY, out=mel)
        np.log(mel, out=mel)  # several times faster than log10, which NumPy does not vectorise
        mel *= _LOG_TO_DB
        np.maximum(mel, recipe.floor_db, out=out[start : start + _FRAMES_AT_ONCE])
