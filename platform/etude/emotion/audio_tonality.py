"""What can be heard of a recording's key, mode and register: 36 features."""

from functools import cache

import numpy as np

from etude.emotion.key import PROFILES
from etude.emotion.spectra import N_FFT, SAMPLE_RATE, Array, Spectra, both, moments

DEGREES = ("1", "b2", "2", "b3", "3", "4", "b5", "5", "b6", "6", "b7", "7")  # semitones above the tonic
LOWEST_HZ, HIGHEST_HZ = 55.0, 2_093.0  # A1 to C7, where the strongest partial is looked for
BASS = 0.1  # of the strongest partial: the lowest as strong as this counts as the bass
TONALITY = (
    *both(tuple(f"chroma_{degree}" for degree in DEGREES)),  # 0..1, of the strongest tone in each frame
    "major_fit",  # correlation with the best major key, -1..1
    "minor_fit",
    "key_margin",  # by how much the best tonic's key fits better than the next tonic's
    "chroma_entropy",  # 0 for one tone alone, 1 for all twelve alike
    *both(("harmonic_change",)),  # distance of half a second's tones from those of the next, 0..1.4
    *both(("strongest_pitch", "bass_pitch")),  # MIDI numbers with fractions
    "pitch_range",  # semitones, from the 10th percentile of the bass to the 90th of the strongest
    "pitch_steps",  # semitones, mean change of the strongest pitch from frame to frame
)


def tonality(spectra: Spectra) -> dict[str, float]:
    """The features `TONALITY`, over the frames that sound; chroma are turned so that the tonic comes first.

    The tonic is that of the best of 24 keys, by correlation of their profiles with the mean chroma.
    """
    chroma = _chroma(spectra)
    mean = chroma.mean(axis=1)
    profiles = [np.array(PROFILES[mode]) for mode in ("major", "minor")]
    fit = np.array([[_correlation(np.roll(mean, -tonic), one) for tonic in range(12)] for one in profiles])
    by_tonic = fit.max(axis=0)
    tonic = int(by_tonic.argmax())
    turned = np.roll(chroma, -tonic, axis=0)
    found: dict[str, float] = {}
    for degree, values in zip(DEGREES, turned, strict=True):
        found |= moments(f"chroma_{degree}", values)
    found["major_fit"], found["minor_fit"] = float(fit[0].max()), float(fit[1].max())
    found["key_margin"] = float(by_tonic[tonic] - np.partition(by_tonic, -2)[-2])
    share = mean / max(float(mean.sum()), 1e-9)
    found["chroma_entropy"] = float(-(share * np.log(share + 1e-12)).sum() / np.log(12))
    return found | moments("harmonic_change", _harmonic_change(chroma)) | _pitches(spectra)


def _chroma(spectra: Spectra) -> Array:
    """[12, t] from C, of the frames that sound, the strongest tone of each at 1."""
    chroma = _chroma_bank() @ spectra.magnitude[:, spectra.sounding] ** 2
    return np.asarray(chroma / np.maximum(chroma.max(axis=0), 1e-12))


@cache
def _chroma_bank() -> Array:
    import librosa

    # Concert pitch is assumed: estimating the tuning would take longer than everything else together.
    return np.asarray(librosa.filters.chroma(sr=SAMPLE_RATE, n_fft=N_FFT, tuning=0.0))


def _correlation(a: Array, b: Array) -> float:
    """Pearson's; 0 where a is constant."""
    a, b = a - a.mean(), b - b.mean()
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length > 1e-9 else 0.0


def _harmonic_change(chroma: Array) -> Array:
    """[k]: distances between the mean chroma, of unit length, of neighbouring halves of seconds."""
    n_blocks = max(1, chroma.shape[1] // 21)  # 21 frames last 0.49 s
    blocks = np.array([block.mean(axis=1) for block in np.array_split(chroma, n_blocks, axis=1)])
    blocks /= np.maximum(np.linalg.norm(blocks, axis=1, keepdims=True), 1e-9)
    return np.linalg.norm(np.diff(blocks, axis=0), axis=1) if n_blocks > 1 else np.zeros(1)


def _pitches(spectra: Spectra) -> dict[str, float]:
    inside = (spectra.hz >= LOWEST_HZ) & (spectra.hz <= HIGHEST_HZ)
    pitch = 69 + 12 * np.log2(spectra.hz[inside] / 440)
    magnitude = spectra.magnitude[inside][:, spectra.sounding]
    strongest = pitch[magnitude.argmax(axis=0)]
    partial = np.zeros(magnitude.shape, bool)
    partial[1:-1] = (magnitude[1:-1] > magnitude[:-2]) & (magnitude[1:-1] >= magnitude[2:])
    partial &= magnitude >= BASS * magnitude.max(axis=0)
    bass = np.where(partial.any(axis=0), pitch[partial.argmax(axis=0)], strongest)
    steps = np.abs(np.diff(strongest))
    return (
        moments("strongest_pitch", strongest)
        | moments("bass_pitch", bass)
        | {
            "pitch_range": float(np.percentile(strongest, 90) - np.percentile(bass, 10)),
            "pitch_steps": float(steps.mean()) if steps.size else 0.0,
        }
    )
