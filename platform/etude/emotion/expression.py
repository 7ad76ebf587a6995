"""Sixteen figures of how a piece is played: what the dynamics network learns to say."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from etude.emotion.performance import ON_GRID, Performance


class Parameter(NamedTuple):
    """One figure of expression; `low` maps to 0 and `high` to 1, what lies beyond is cut off."""

    name: str
    unit: str
    low: float
    high: float
    logarithmic: bool = False  # equal ratios are equal steps


# Of 100 pieces of the demo library at most 3 reach a bound, but for legato and polyphony, whose ends are
# common. Swells and accents on first beats are no part of it: no player of the demo library makes any.
EXPRESSION = (
    Parameter("loudness", "mean MIDI velocity", 0, 127),
    Parameter("loudness_spread", "standard deviation of velocity", 0, 32),
    Parameter("beat_accent", "velocity on counted beats above that between them", -32, 32),
    Parameter("articulation", "share of the time until the next onset that a note sounds, mean", 0.5, 1),
    Parameter("articulation_spread", "standard deviation of that share", 0, 0.4),
    Parameter("legato", "share of notes that sound at least 0.95 of that time", 0, 1),
    Parameter("note_length", "seconds, geometric mean", 0.05, 3, logarithmic=True),
    Parameter("density", "moments a second at which notes begin", 0.5, 16, logarithmic=True),
    Parameter("polyphony", "notes at a time while any sounds, mean", 1, 8, logarithmic=True),
    Parameter("tempo", "counted beats a minute", 40, 208, logarithmic=True),
    Parameter("silence", "share of the time without a note", 0, 0.5),
    Parameter("register", "mean MIDI pitch", 36, 84),
    Parameter("register_spread", "semitones, standard deviation of pitch", 0, 18),
    Parameter("melodic_step", "semitones from one highest note to the next, mean", 0, 12),
    Parameter("syncopation", "share of the moments that lie between counted beats", 0, 1),
    Parameter("rhythm_variety", "octaves, standard deviation of the time between moments", 0, 1.5),
)
LEGATO = 0.95
OVERLAP = 0.8  # the next onset is the first after so much of a note: tied notes overlap it


def expression_of(performance: Performance) -> NDArray[np.float32]:
    """[16], each 0 to 1: the figures of `EXPRESSION`, mapped by their bounds."""
    figures = figures_of(performance)
    mapped = [_mapped(parameter, figures[parameter.name]) for parameter in EXPRESSION]
    return np.array(mapped, dtype=np.float32)


def figures_of(performance: Performance) -> dict[str, float]:
    """The figures in their units. Notes of drums count as pitches only if nothing else plays.

    Where the metre is not known, `beat_accent` is 0 and `syncopation` 0.5: the middle of each.
    """
    notes = performance.pitched if not performance.drum.all() else performance
    moments = np.flatnonzero(np.diff(performance.onset_beats, prepend=-np.inf) > ON_GRID)
    share = _articulation(notes)
    duration_s, sounding_s = performance.duration_s, _sounding_s(performance)
    on_beat, velocity = performance.on_beat(), performance.velocity
    figures: Mapping[str, float | np.floating] = {
        "loudness": velocity.mean(),
        "loudness_spread": velocity.std(),
        "beat_accent": _above(velocity, on_beat) if performance.measured else 0.0,
        "articulation": share.mean(),
        "articulation_spread": share.std(),
        "legato": (share >= LEGATO).mean(),
        "note_length": np.exp(np.log(performance.length_s).mean()),
        "density": len(moments) / duration_s,
        "polyphony": performance.length_s.sum() / sounding_s,
        "tempo": performance.tempo_bpm,
        "silence": 1 - sounding_s / duration_s,
        "register": notes.pitch.mean(),
        "register_spread": notes.pitch.std(),
        "melodic_step": _melodic_step(notes),
        "syncopation": 1 - on_beat[moments].mean() if performance.measured else 0.5,
        "rhythm_variety": _rhythm_variety(performance.onset_s[moments]),
    }
    return {name: float(figure) for name, figure in figures.items()}


def expression_values(expression_16: NDArray[np.float32]) -> dict[str, float]:
    """What numbers from 0 to 1 mean in the units of `EXPRESSION`: the inverse of the map."""
    return {
        p.name: p.low * (p.high / p.low) ** float(x) if p.logarithmic else p.low + (p.high - p.low) * float(x)
        for p, x in zip(EXPRESSION, expression_16, strict=True)
    }


def _mapped(parameter: Parameter, figure: float) -> float:
    low, high, figure = parameter.low, parameter.high, min(max(figure, parameter.low), parameter.high)
    if parameter.logarithmic:
        return math.log(figure / low) / math.log(high / low)
    return (figure - low) / (high - low)


def _above(velocity: NDArray[np.int64], chosen: NDArray[np.bool_]) -> float:
    """By how much the chosen notes are louder than the others; 0 if there are no others."""
    if chosen.all() or not chosen.any():
        return 0.0
    return float(velocity[chosen].mean() - velocity[~chosen].mean())


def _articulation(notes: Performance) -> NDArray[np.float64]:
    """For each note the share, up to 1, of the time until the next onset of any note; 1 for a lone note."""
    after = np.searchsorted(notes.onset_s, notes.onset_s + OVERLAP * notes.length_s)
    followed = (after < len(notes.pitch)) & (after > np.arange(len(notes.pitch)))
    until_next_s = notes.onset_s[after[followed]] - notes.onset_s[followed]
    share: NDArray[np.float64] = np.minimum(1, notes.length_s[followed] / until_next_s)
    return share if len(share) else np.ones(1)


def _sounding_s(performance: Performance) -> float:
    """Seconds in which at least one note sounds."""
    ends = np.maximum.accumulate(performance.onset_s + performance.length_s)
    gaps = (performance.onset_s[1:] - ends[:-1]).clip(0)
    return performance.duration_s - float(gaps.sum())


def _melodic_step(notes: Performance) -> float:
    """Semitones between the highest notes of successive moments, on the average; 0 for a single one."""
    moments = np.flatnonzero(np.diff(notes.onset_beats, prepend=-np.inf) > ON_GRID)
    highest = np.maximum.reduceat(notes.pitch, moments)
    return float(np.abs(np.diff(highest)).mean()) if len(highest) > 1 else 0.0


def _rhythm_variety(moments_s: NDArray[np.float64]) -> float:
    """Standard deviation of the binary logarithm of the times between moments; 0 for an even pulse."""
    return float(np.log2(np.diff(moments_s)).std()) if len(moments_s) > 1 else 0.0
