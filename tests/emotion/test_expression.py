"""The sixteen figures of how a piece is played."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.emotion.expression import EXPRESSION, expression_of, expression_values, figures_of
from tests.emotion.notes import Played, chords, line, played, some_notes, transposed

NAMES = [parameter.name for parameter in EXPRESSION]


@settings(max_examples=80)
@given(notes=some_notes, measured=st.booleans())
def test_all_sixteen_are_between_0_and_1_for_any_piece(notes: list[Played], measured: bool) -> None:
    numbers = expression_of(played(notes, measured=measured))
    assert numbers.shape == (len(EXPRESSION),) == (16,) and len(set(NAMES)) == 16
    assert ((numbers >= 0) & (numbers <= 1)).all()


@settings(max_examples=80)
@given(notes=some_notes)
def test_twice_as_fast_doubles_what_is_counted_in_seconds_only(notes: list[Played]) -> None:
    slow = played(notes)
    fast = replace(slow, onset_s=slow.onset_s / 2, length_s=slow.length_s / 2, tempo_bpm=2 * slow.tempo_bpm)
    expected = figures_of(slow)
    for name in ("tempo", "density"):
        expected[name] *= 2
    expected["note_length"] /= 2
    assert figures_of(fast) == pytest.approx(expected)


@settings(max_examples=40)
@given(notes=some_notes)
def test_a_piece_that_is_transposed_changes_its_register_only(notes: list[Played]) -> None:
    tune = [(*note[:4], False) for note in notes]
    expected = figures_of(played(tune))
    expected["register"] += 5
    assert figures_of(transposed(played(tune), 5)) == pytest.approx(expected)


def test_short_notes_are_detached_and_long_ones_legato() -> None:
    short, long = figures_of(line(60, 62, 64, 65, length=0.5)), figures_of(line(60, 62, 64, 65))
    assert (short["articulation"], short["legato"]) == (0.5, 0)
    assert (long["articulation"], long["legato"]) == (1, 1)
    assert short["silence"] == pytest.approx(1.5 / 3.5) and long["silence"] == 0


def test_a_note_held_over_its_successor_is_legato() -> None:
    assert figures_of(line(60, 62, 64, 65, length=1.1))["legato"] == 1


def test_chords_are_thicker_than_lines() -> None:
    chorale = figures_of(chords((60, 64, 67, 72), (59, 62, 67, 74)))
    assert (chorale["polyphony"], chorale["density"], chorale["melodic_step"]) == (4, 0.5, 2)
    assert figures_of(line(60, 64, 67))["polyphony"] == 1


def test_accents_and_syncopation_need_a_metre() -> None:
    notes = [(i / 2, 0.5, 60, 90 if i % 2 == 0 else 70, False) for i in range(16)]
    figures = figures_of(played(notes))
    assert (figures["beat_accent"], figures["syncopation"]) == (20, 0.5)
    unmeasured = expression_of(played(notes[::2], measured=False))
    assert unmeasured[NAMES.index("beat_accent")] == unmeasured[NAMES.index("syncopation")] == 0.5
    assert figures_of(played(notes[::2]))["syncopation"] == 0


def test_uneven_rhythm_is_varied() -> None:
    dotted = played([(2.0 * i + 1.5 * j, 0.5, 60, 80, False) for i in range(8) for j in range(2)])
    assert figures_of(line(60, 60, 60, 60))["rhythm_variety"] == 0
    assert figures_of(dotted)["rhythm_variety"] == pytest.approx(np.log2(3) / 2, abs=0.01)


def test_drums_are_pitches_only_where_nothing_else_plays() -> None:
    tune = [(float(i), 1.0, 60, 80, False) for i in range(4)]
    drums = [(i / 2, 0.1, 36, 80, True) for i in range(8)]
    assert figures_of(played([*tune, *drums]))["register"] == 60
    assert figures_of(played([*tune, *drums]))["density"] == pytest.approx(8 / 4)
    assert figures_of(played(drums))["register"] == 36


def test_numbers_can_be_read_in_their_units_again() -> None:
    performance = line(60, 62, 64, 65, length=0.75)
    figures, values = figures_of(performance), expression_values(expression_of(performance))
    assert list(values) == NAMES
    for name in ("loudness", "tempo", "density", "register", "articulation", "note_length"):
        assert values[name] == pytest.approx(figures[name], rel=1e-5)
