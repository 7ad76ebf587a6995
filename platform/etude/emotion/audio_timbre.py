"""What a recording sounds like: 82 features of its spectrum and its loudness."""

import numpy as np

from etude.emotion.spectra import FLOOR, FRAME_RATE, SAMPLE_RATE, Array, Spectra, both, moments

N_MFCC = 20
TINY = 1e-20  # keeps logarithms and quotients finite; no energy of a sound is as small
_CONTRAST = tuple(f"contrast_{band}" for band in range(7))  # dB, between peaks and valleys of octave bands
_SHAPE = (
    "centroid",  # Hz
    "bandwidth",  # Hz
    "rolloff",  # Hz, below which 85% of the magnitude lie
    "flatness",  # dB, the geometric over the arithmetic mean of the bins: 0 for white noise
    "entropy",  # 0..1 of the most that this many bins can have
    "flux",  # change from frame to frame of the spectrum of unit length, 0..1.4
    "peak",  # dB, of the strongest bin over their mean
    "zero_crossings",  # share of samples, 0..1
)
_BANDS_HZ = {"low": (0, 200), "middle": (200, 800), "high": (3_200, 12_000)}  # 800 to 3,200 Hz is the rest
_LOUDNESS = (
    "rms_mean",  # of full scale
    "rms_std",
    "loudness_mean",  # dB of full scale
    "loudness_std",  # dB
    "loudness_range",  # dB, from the 10th to the 90th percentile
    "loudness_slope",  # dB a second, of a line through the whole
    "decay",  # dB a second, mean fall from frame to frame
    "quiet_share",  # of frames that are softer than the mean
    "crest",  # dB, from rms to peak
)
TIMBRE = (
    *both(tuple(f"mfcc_{number}" for number in range(N_MFCC))),
    *both(_CONTRAST),
    *both(_SHAPE),
    *(f"share_{band}" for band in _BANDS_HZ),
    *_LOUDNESS,
)


def timbre(spectra: Spectra) -> dict[str, float]:
    """The features `TIMBRE`; those of the spectrum's shape are over the frames that sound."""
    import librosa

    sounding = spectra.sounding
    mfcc = librosa.feature.mfcc(S=spectra.mel_db, n_mfcc=N_MFCC)
    contrast = librosa.feature.spectral_contrast(S=spectra.magnitude, sr=SAMPLE_RATE)
    found: dict[str, float] = {}
    for number in range(N_MFCC):
        found |= moments(f"mfcc_{number}", mfcc[number])
    for name, values in zip(_CONTRAST, contrast, strict=True):
        found |= moments(name, values[sounding])
    for name, values in _shape(spectra).items():
        found |= moments(name, values[sounding])
    return found | _shares(spectra) | _loudness(spectra)


def _shape(spectra: Spectra) -> dict[str, Array]:
    """[t] each, in the order of `_SHAPE`; 0 for a frame without any sound."""
    magnitude, hz = spectra.magnitude, spectra.hz
    share = magnitude / np.maximum(magnitude.sum(axis=0), TINY)
    centroid = hz @ share
    energy = magnitude**2 + TINY
    unit = magnitude / np.sqrt(energy.sum(axis=0))
    mean_db = 10 * np.log10(energy.mean(axis=0))
    return {
        "centroid": centroid,
        "bandwidth": np.sqrt(np.maximum(hz**2 @ share - centroid**2, 0)),
        "rolloff": hz[np.argmax(np.cumsum(share, axis=0) >= 0.85 * share.sum(axis=0), axis=0)],
        "flatness": 10 * np.log10(energy).mean(axis=0) - mean_db,
        "entropy": -(share * np.log(share + TINY)).sum(axis=0) / np.log(len(hz)),
        "flux": np.linalg.norm(np.diff(unit, axis=1, prepend=unit[:, :1]), axis=0),
        "peak": 10 * np.log10(energy.max(axis=0)) - mean_db,
        "zero_crossings": _zero_crossings(spectra),
    }


def _zero_crossings(spectra: Spectra) -> Array:
    """[t], the share of the samples of each hop that have another sign than the one before."""
    crossed = np.diff(np.signbit(spectra.samples)).astype(np.float64)
    edges = np.linspace(0, len(crossed), len(spectra.rms) + 1).astype(int)
    return np.asarray(np.add.reduceat(crossed, edges[:-1]) / np.diff(edges))


def _shares(spectra: Spectra) -> dict[str, float]:
    """The share of all energy that lies in each of the bands, 0..1."""
    energy = (spectra.magnitude**2).sum(axis=1)
    total = max(float(energy.sum()), TINY)
    return {
        f"share_{band}": float(energy[(spectra.hz >= low) & (spectra.hz < high)].sum()) / total
        for band, (low, high) in _BANDS_HZ.items()
    }


def _loudness(spectra: Spectra) -> dict[str, float]:
    rms = spectra.rms
    db = 20 * np.log10(np.maximum(rms, FLOOR))
    seconds = (np.arange(len(db)) - (len(db) - 1) / 2) / FRAME_RATE
    spread = float(seconds @ seconds)
    whole = float(np.sqrt(np.mean(spectra.samples.astype(np.float64) ** 2)))
    peak = float(np.abs(spectra.samples).max())
    return {
        "rms_mean": float(rms.mean()),
        "rms_std": float(rms.std()),
        "loudness_mean": float(db.mean()),
        "loudness_std": float(db.std()),
        "loudness_range": float(np.percentile(db, 90) - np.percentile(db, 10)),
        "loudness_slope": float(seconds @ db) / spread if spread else 0.0,
        "decay": FRAME_RATE * float(np.maximum(-np.diff(db), 0).mean()) if len(db) > 1 else 0.0,
        "quiet_share": float(np.mean(rms < rms.mean())),
        "crest": float(20 * np.log10(max(peak, FLOOR) / max(whole, FLOOR))),
    }
