"""Performances for the tests of this folder."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from etude.emotion.performance import Performance

Played = tuple[float, float, int, int, bool]  # onset and length in beats, pitch, velocity, drum


def played(
    notes: Sequence[Played], tempo_bpm: float = 60.0, beats_per_bar: float = 4.0, measured: bool = True
) -> Performance:
    """These notes at this tempo."""
    onset, length, pitch, velocity, drum = (np.array(column) for column in zip(*notes, strict=True))
    return Performance(
        onset_s=onset * 60.0 / tempo_bpm,
        length_s=length * 60.0 / tempo_bpm,
        onset_beats=onset.astype(np.float64),
        length_beats=length.astype(np.float64),
        pitch=pitch.astype(np.int64),
        velocity=velocity.astype(np.int64),
        drum=drum.astype(np.bool_),
        tempo_bpm=tempo_bpm,
        beats_per_bar=beats_per_bar,
        measured=measured,
    ).sorted()


def line(*pitches: int, length: float = 1.0, velocity: int = 80) -> Performance:
    """One note after the other, a beat each."""
    return played([(float(i), length, pitch, velocity, False) for i, pitch in enumerate(pitches)])


def chords(*pitches: Sequence[int]) -> Performance:
    """Chords of two beats each."""
    return played([(2.0 * i, 2.0, pitch, 80, False) for i, chord in enumerate(pitches) for pitch in chord])


# Sixteenths, so that times are exact; pitches stay clear of the ends, so that a piece can be transposed.
some_notes = st.lists(
    st.tuples(
        st.integers(0, 64).map(lambda n: n / 4),
        st.integers(1, 16).map(lambda n: n / 4),
        st.integers(24, 96),
        st.integers(1, 127),
        st.booleans(),
    ),
    min_size=1,
    max_size=30,
)
steps = st.integers(-12, 12)  # semitones


def transposed(performance: Performance, semitones: int) -> Performance:
    """The same notes so many semitones higher; drums stay what they are."""
    pitch = performance.pitch + np.where(performance.drum, 0, semitones)
    return replace(performance, pitch=pitch)
