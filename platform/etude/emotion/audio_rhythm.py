"""What can be heard of a recording's tempo and rhythm: 10 features."""

import numpy as np

from etude.emotion.spectra import FRAME_RATE, HOP, SAMPLE_RATE, Array, Spectra, both, moments

_CLOSEST = 3  # frames, 70 ms, between two onsets
_PULSE_S = (0.25, 1.5)  # 240 to 40 beats a minute
_RATES_HZ = ((0.5, 1), (1, 2), (2, 4), (4, 8))  # onsets a second
_N_FFT = 4_096  # frames, so that even a second of music has a finely drawn spectrum of its onsets
RHYTHM = (
    "tempo",  # beats a minute
    "pulse_clarity",  # 0..1, how far the strength of the onsets repeats itself
    *both(("onset_strength",)),  # dB, mean rise over the mel bands
    "onset_rate",  # a second
    "onset_irregularity",  # spread of the times between onsets over their mean
    *(f"pulse_{low:g}_to_{high:g}_hz" for low, high in _RATES_HZ),  # share of the onsets' spectrum, 0..1
)


def rhythm(spectra: Spectra) -> dict[str, float]:
    """The features `RHYTHM`; pulse clarity as the highest autocorrelation of the onset curve.

    Lartillot, Eerola, Toiviainen and Fornari, "Multi-feature modeling of pulse clarity", ISMIR 2008.
    """
    import librosa

    strength = librosa.onset.onset_strength(S=spectra.mel_db, sr=SAMPLE_RATE, hop_length=HOP)
    tempo = librosa.feature.tempo(onset_envelope=strength, sr=SAMPLE_RATE, hop_length=HOP)
    onsets_s = _onsets(strength) / FRAME_RATE
    between_s = np.diff(onsets_s)
    return (
        {"tempo": float(tempo[0]), "pulse_clarity": _clarity(strength)}
        | moments("onset_strength", strength)
        | {
            "onset_rate": len(onsets_s) * SAMPLE_RATE / len(spectra.samples),
            "onset_irregularity": float(between_s.std() / between_s.mean()) if between_s.size else 0.0,
        }
        | _rates(strength)
    )


def _onsets(strength: Array) -> Array:
    """Frames [k] where the curve has a peak that stands out by half of its spread."""
    from scipy.signal import find_peaks

    spread = float(strength.std())
    if spread < 1e-9:
        return np.zeros(0)
    peaks, _ = find_peaks(strength, prominence=spread / 2, distance=_CLOSEST)
    return np.asarray(peaks, np.float64)


def _clarity(strength: Array) -> float:
    """The highest autocorrelation at the lag of a beat; 0 for what is even, or shorter than a beat."""
    rises = strength - strength.mean()
    spectrum = np.abs(np.fft.rfft(rises, 2 * len(rises))) ** 2
    correlation = np.fft.irfft(spectrum)[: len(rises)]
    shortest, longest = (round(lag_s * FRAME_RATE) for lag_s in _PULSE_S)
    beats = correlation[shortest : longest + 1]
    if correlation[0] < 1e-9 or not beats.size:
        return 0.0
    return max(0.0, float(beats.max() / correlation[0]))


def _rates(strength: Array) -> dict[str, float]:
    spectrum = np.abs(np.fft.rfft(strength - strength.mean(), max(_N_FFT, len(strength)))) ** 2
    hz = np.fft.rfftfreq(max(_N_FFT, len(strength)), 1 / FRAME_RATE)
    total = max(float(spectrum.sum()), 1e-9)
    return {
        f"pulse_{low:g}_to_{high:g}_hz": float(spectrum[(hz >= low) & (hz < high)].sum()) / total
        for low, high in _RATES_HZ
    }
