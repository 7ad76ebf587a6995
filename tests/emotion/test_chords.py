"""Chords are named from the tonic, one name for each change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.emotion.chords import CHORD_TONES, CHORDS, beat_chroma, chords_of
from etude.emotion.key import Key
from etude.emotion.performance import Performance
from tests.emotion.notes import Played, chords, line, played, some_notes, steps, transposed

C_MAJOR, A_MINOR = Key(0, "major", 0.1), Key(9, "minor", 0.1)


def names(performance: Performance, key: Key) -> list[str]:
    return [CHORDS[chord] for chord in chords_of(performance, key)]


def test_there_are_64_different_chords() -> None:
    assert len(CHORDS) == len(set(CHORDS)) == 64
    assert len({frozenset(tones) for tones in CHORD_TONES.values()}) == 64


@pytest.mark.parametrize("chord", CHORDS)
def test_every_chord_is_known_when_it_sounds_alone(chord: str) -> None:
    assert names(chords([60 + tone for tone in CHORD_TONES[chord]]), C_MAJOR) == [chord]


def test_a_cadence_in_major_and_in_minor() -> None:
    cadence = chords((60, 64, 67), (62, 65, 69, 72), (67, 71, 74, 77), (60, 64, 67))
    assert names(cadence, C_MAJOR) == ["I", "IIm7", "V7", "I"]
    cadence = chords((57, 60, 64), (62, 65, 69), (64, 68, 71), (57, 60, 64))
    assert names(cadence, A_MINOR) == ["Im", "IVm", "V", "Im"]


def test_a_passing_note_or_a_rest_changes_no_chord() -> None:
    c = [(0.0, 4.0, pitch, 80, False) for pitch in (48, 60, 64, 67)]
    assert names(played([*c, (1.0, 0.5, 74, 80, False)]), C_MAJOR) == ["I"]
    later = [(8.0, 4.0, pitch, 80, False) for pitch in (48, 60, 64, 67)]
    assert names(played([*c, *later]), C_MAJOR) == ["I"]


def test_a_broken_chord_is_one_chord() -> None:
    assert names(line(60, 64, 67, 72, 67, 64, 60), C_MAJOR) == ["I"]


@settings(max_examples=50)
@given(notes=some_notes, semitones=steps, tonic=st.integers(0, 11))
def test_a_piece_that_is_transposed_has_the_same_chords(
    notes: list[Played], semitones: int, tonic: int
) -> None:
    moved = Key((tonic + semitones) % 12, "minor", 0.1)
    there = chords_of(transposed(played(notes), semitones), moved)
    here = chords_of(played(notes), Key(tonic, "minor", 0.1))
    assert here.tolist() == there.tolist()
    assert (np.diff(here) != 0).all() and ((here >= 0) & (here < 64)).all()


@settings(max_examples=50)
@given(notes=some_notes)
def test_every_beat_of_every_note_is_in_the_chroma(notes: list[Played]) -> None:
    pitched = [note for note in notes if not note[4]]
    total = sum(length for _, length, _, _, _ in pitched)
    assert beat_chroma(played(notes)).sum() == pytest.approx(total)


def test_drums_alone_have_no_chords() -> None:
    assert len(chords_of(played([(0.0, 1.0, 36, 90, True)]), C_MAJOR)) == 0
