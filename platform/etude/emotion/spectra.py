"""The one short-time spectrum of a recording from which all of its audio features are taken."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 22_050  # Hz, as upstream has it (facts, b)
N_FFT = 2_048  # samples, 93 ms
HOP = 512  # samples, 23 ms
FRAME_RATE = SAMPLE_RATE / HOP  # frames a second
FLOOR = 1e-5  # of full scale, -100 dB: what is softer counts as silence
Array = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Spectra:
    """Frames of a recording: t of them, 512 samples apart."""

    samples: NDArray[np.float32]  # [n], at least N_FFT of them
    magnitude: Array  # [1025, t], a sine of full scale reaches about 0.5
    hz: Array  # [1025], of the bins
    mel_db: Array  # [128, t], in dB, at most 80 below the loudest
    rms: Array  # [t], of full scale
    sounding: NDArray[np.bool_]  # [t], frames that are no softer than 1/1000 of the loudest; all if none is


def spectra_of(samples: NDArray[np.float32]) -> Spectra:
    """The spectra of mono samples [n] at 22,050 Hz; what is shorter than a window is filled up with zeros."""
    import librosa  # takes seconds, which listing pieces need not pay

    assert samples.ndim == 1
    samples = np.pad(samples, (0, max(0, N_FFT - len(samples))))
    magnitude = np.abs(librosa.stft(samples, n_fft=N_FFT, hop_length=HOP)) * np.float32(2 / N_FFT)
    rms = librosa.feature.rms(y=samples, frame_length=N_FFT, hop_length=HOP)[0]
    sounding = rms > max(FLOOR, rms.max() / 1000)
    return Spectra(
        samples=samples,
        magnitude=magnitude,
        hz=librosa.fft_frequencies(sr=SAMPLE_RATE, n_fft=N_FFT).astype(np.float32),
        mel_db=librosa.power_to_db(_mel_bank() @ magnitude**2, amin=FLOOR**2),
        rms=rms,
        sounding=sounding if sounding.any() else np.ones_like(sounding),
    )


@cache
def _mel_bank() -> Array:
    import librosa

    return np.asarray(librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT))


def moments(name: str, values_T: Array) -> dict[str, float]:
    """Mean and standard deviation over time, of finite values [t], under the names `<name>_mean`, `_std`."""
    return {f"{name}_mean": float(values_T.mean()), f"{name}_std": float(values_T.std())}


def both(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names that `moments` gives each of these, in its order."""
    return tuple(f"{name}_{kind}" for name in names for kind in ("mean", "std"))
