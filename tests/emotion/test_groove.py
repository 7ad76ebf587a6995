"""Where notes begin in the bar, and their accents."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.emotion.groove import groove_of
from tests.emotion.notes import Played, played, some_notes


def on(*beats: float, velocity: int = 80, drum: bool = False) -> list[Played]:
    return [(beat, 0.25, 36, velocity, drum) for beat in beats]


def steps(notes: list[Played], beats_per_bar: float = 4.0) -> list[float]:
    groove = groove_of(played(notes, beats_per_bar=beats_per_bar))
    assert groove is not None
    return [float(density) for density in groove[:16]]


def test_the_share_of_bars_that_strike_a_step() -> None:
    density = steps(on(0, 1, 2, 3, 4, 6, 7))
    assert [density[i] for i in (0, 4, 8, 12)] == [1, 0.5, 1, 1]
    assert sum(density) == 3.5


def test_a_chord_is_one_onset_and_drums_count() -> None:
    assert steps([*on(0), (0.0, 4.0, 64, 80, False), *on(2, drum=True)])[::8] == [1, 1]


def test_two_bars_of_two_are_sixteen_steps_and_music_in_three_has_none() -> None:
    assert np.flatnonzero(steps(on(0, 0.5, 2, 3.75), beats_per_bar=2)).tolist() == [0, 2, 8, 15]
    assert groove_of(played(on(0, 1, 2), beats_per_bar=3)) is None
    assert groove_of(played(on(0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3), beats_per_bar=2)) is None


def test_a_note_just_before_the_bar_belongs_to_it() -> None:
    assert steps(on(0, 3.99, 8.01))[0] == 1


def test_louder_steps_are_accented() -> None:
    groove = groove_of(played([*on(0, 4, velocity=96), *on(2, 6, velocity=64)]))
    assert groove is not None
    assert (groove[16], groove[24], groove[20]) == (0.75, 0.25, 0.5)


@settings(max_examples=60)
@given(notes=some_notes, bars=st.integers(0, 9), louder=st.integers(-126, 126))
def test_neither_where_a_piece_begins_nor_how_loud_it_is_changes_its_groove(
    notes: list[Played], bars: int, louder: int
) -> None:
    groove = groove_of(played(notes))
    assert groove is not None and groove.shape == (32,)
    assert ((groove >= 0) & (groove <= 1)).all()
    quietest, loudest = min(note[3] for note in notes), max(note[3] for note in notes)
    louder = min(127 - loudest, max(1 - quietest, louder))
    moved = [(onset + 4 * bars, length, pitch, v + louder, drum) for onset, length, pitch, v, drum in notes]
    assert groove_of(played(moved, tempo_bpm=240)) == pytest.approx(groove, abs=1e-6)


def test_no_metre_no_groove() -> None:
    assert groove_of(played(on(0, 1), measured=False)) is None
