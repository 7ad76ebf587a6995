"""The distribution of pitches that the melody network learns."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.emotion.key import Key
from etude.emotion.melody import melody_of
from etude.errors import BadAudio
from tests.emotion.notes import Played, line, played, some_notes, steps, transposed


def test_the_tonic_is_moved_to_c_by_the_shorter_way() -> None:
    d = melody_of(line(62, 69), Key(2, "major", 0.1))
    assert np.flatnonzero(d).tolist() == [60, 67] and d[60] == 0.5
    assert np.flatnonzero(melody_of(line(71, 66), Key(11, "major", 0.1))).tolist() == [67, 72]


def test_no_pitch_is_lost_at_the_ends() -> None:
    low, high = melody_of(line(0), Key(6, "major", 0.1)), melody_of(line(127), Key(7, "major", 0.1))
    assert np.flatnonzero(low).tolist() == [6] and np.flatnonzero(high).tolist() == [120]


@settings(max_examples=50)
@given(notes=some_notes, semitones=steps, tonic=st.integers(0, 11))
def test_a_piece_that_is_transposed_has_the_same_melody_but_for_octaves(
    notes: list[Played], semitones: int, tonic: int
) -> None:
    notes = [(*note[:4], False) for note in notes]
    here = melody_of(played(notes), Key(tonic, "major", 0.1))
    there = melody_of(transposed(played(notes), semitones), Key((tonic + semitones) % 12, "major", 0.1))
    folded = [np.bincount(np.arange(128) % 12, weights=melody) for melody in (here, there)]
    assert folded[0] == pytest.approx(folded[1], abs=1e-6)
    assert here.shape == (128,) and here.sum() == pytest.approx(1) and here.min() >= 0


@settings(max_examples=50)
@given(first=some_notes, rest=some_notes)
def test_a_whole_is_its_parts_weighted_by_their_sound(first: list[Played], rest: list[Played]) -> None:
    key = Key(3, "major", 0.1)
    first, rest, whole = ([(*note[:4], False) for note in notes] for notes in (first, rest, first + rest))
    one, other, both = (melody_of(played(n), key) * sum(note[1] for note in n) for n in (first, rest, whole))
    assert one + other == pytest.approx(both, rel=1e-5)


def test_drums_alone_are_no_melody() -> None:
    with pytest.raises(BadAudio, match="only drums play"):
        melody_of(played([(0.0, 1.0, 36, 90, True)]), Key(0, "major", 0.0))
