"""The chords of a performance, counted from its tonic: what the harmony network learns to say."""

import numpy as np
from numpy.typing import NDArray

from etude.emotion.key import Key
from etude.emotion.performance import Performance

DEGREES = ("I", "bII", "II", "bIII", "III", "IV", "#IV", "V", "bVI", "VI", "bVII", "VII")  # semitones above
QUALITIES = {"": (0, 4, 7), "m": (0, 3, 7), "dim": (0, 3, 6), "7": (0, 4, 7, 10), "m7": (0, 3, 7, 10)}
AUGMENTED = (0, 4, 8)  # divides the octave evenly: there are only four
# Semitones above the tonic of each chord's notes, the root first; names such as IV, IIm7, VIIdim, Iaug.
CHORD_TONES = {
    degree + quality: tuple((root + step) % 12 for step in steps)
    for quality, steps in QUALITIES.items()
    for root, degree in enumerate(DEGREES)
} | {DEGREES[root] + "aug": tuple((root + step) % 12 for step in AUGMENTED) for root in range(4)}
CHORDS: tuple[str, ...] = tuple(CHORD_TONES)
# Notes that belong to a key, the raised seventh of minor among them.
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10, 11)}
# Set by hand: a bare note counts rather as a root and within the key, and a chord that no longer fits
# perfectly is kept for a beat unless another fits clearly better.
ROOT, IN_KEY, CHANGE = 0.1, 0.1, 0.15


def chords_of(performance: Performance, key: Key) -> NDArray[np.int64]:
    """[c]: places in `CHORDS`, one for each change of chord; empty if only drums play.

    Each counted beat is compared with all 64 chords, and the succession with the best sum is taken, where
    every change costs a little (the Viterbi algorithm); beats of silence prolong what was heard.
    """
    chroma_B12 = np.roll(beat_chroma(performance), -key.tonic, axis=1)
    if not len(chroma_B12):
        return np.zeros(0, dtype=np.int64)
    fit_BC = _fit(chroma_B12, SCALES[key.mode])
    came_from = np.empty(fit_BC.shape, dtype=np.int64)
    total_C = np.zeros(len(CHORDS))
    for beat, fit_C in enumerate(fit_BC):
        best = int(total_C.argmax())
        change_C = total_C < total_C[best] - CHANGE
        came_from[beat] = np.where(change_C, best, np.arange(len(CHORDS)))
        total_C = np.where(change_C, total_C[best] - CHANGE, total_C) + fit_C
    path = [int(total_C.argmax())]
    for back_C in came_from[:0:-1]:
        path.append(int(back_C[path[-1]]))
    path_B = np.array(path[::-1])
    changes: NDArray[np.int64] = path_B[np.diff(path_B, prepend=-1) != 0]
    return changes


def beat_chroma(performance: Performance) -> NDArray[np.float64]:
    """[beats, 12]: how much of each beat a pitch class sounds, C first, from the first onset to the last end.

    Notes that sound together add up.
    """
    notes = performance.pitched
    if not len(notes.pitch):
        return np.zeros((0, 12))
    ends = notes.onset_beats + notes.length_beats
    edges = np.arange(np.floor(notes.onset_beats.min()), np.ceil(ends.max()) + 1)
    chroma_B12 = np.zeros((len(edges) - 1, 12))
    for pitch_class in range(12):
        mine = notes.pitch % 12 == pitch_class
        sounded = _since(notes.onset_beats[mine], edges) - _since(ends[mine], edges)
        chroma_B12[:, pitch_class] = np.diff(sounded)
    return chroma_B12.clip(0)


def _since(times: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each moment the beats since every earlier time, summed."""
    times = np.sort(times)
    n_before = np.searchsorted(times, at)
    summed: NDArray[np.float64] = np.concatenate([[0.0], np.cumsum(times)])
    since: NDArray[np.float64] = n_before * at - summed[n_before]
    return since


def _fit(chroma_B12: NDArray[np.float64], scale: tuple[int, ...]) -> NDArray[np.float64]:
    """[beats, 64]: cosine to each chord, with a little for its root and for a chord of the key."""
    tones_C12, roots_C12 = np.zeros((2, len(CHORDS), 12))
    for chord, tones in enumerate(CHORD_TONES.values()):
        tones_C12[chord, list(tones)] = 1 / np.sqrt(len(tones))
        roots_C12[chord, tones[0]] = ROOT
    in_key_C = np.array([set(tones) <= set(scale) for tones in CHORD_TONES.values()])
    length_B1 = np.linalg.norm(chroma_B12, axis=1, keepdims=True)
    sounds_B1 = length_B1 > 1e-6
    unit_B12 = chroma_B12 / np.where(sounds_B1, length_B1, 1)
    fit_BC: NDArray[np.float64] = unit_B12 @ (tones_C12 + roots_C12).T + IN_KEY * in_key_C
    return np.where(sounds_B1, fit_BC, 0.0)
