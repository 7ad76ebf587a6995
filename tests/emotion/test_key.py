"""Keys that are found are those that a musician names."""

import pytest
from hypothesis import assume, given, settings

from etude.emotion.key import Key, find_key, pitch_classes
from tests.emotion.notes import Played, chords, line, played, some_notes, steps, transposed

C, F, G = (60, 64, 67), (65, 69, 72), (67, 71, 74)
A_MINOR, D_MINOR, E = (57, 60, 64), (62, 65, 69), (64, 68, 71)


def test_cadences_name_their_key() -> None:
    major, minor = find_key(chords(C, F, G, C)), find_key(chords(A_MINOR, D_MINOR, E, A_MINOR))
    assert (major.tonic, major.mode) == (0, "major") and major.minorness < 0
    assert (minor.tonic, minor.mode) == (9, "minor") and minor.minorness > 0
    assert 0 < major.certainty < 1


def test_long_notes_count_for_more() -> None:
    short, long = line(60, 64, 67, 57, length=0.1), line(57, 60, 64, 57, length=1)
    assert find_key(short).mode == "major"
    assert find_key(long).mode == "minor"


@settings(max_examples=60)
@given(notes=some_notes, semitones=steps)
def test_a_piece_that_is_transposed_changes_its_tonic_only(notes: list[Played], semitones: int) -> None:
    here, there = find_key(played(notes)), find_key(transposed(played(notes), semitones))
    assert there.certainty == pytest.approx(here.certainty)
    assert there.minorness == pytest.approx(here.minorness)
    assume(here.certainty > 1e-6)  # else several keys fit equally well
    assert (there.tonic, there.mode) == ((here.tonic + semitones) % 12, here.mode)


def test_drums_say_nothing_of_the_key() -> None:
    drums = [(float(i), 1.0, 36, 90, True) for i in range(8)]
    assert find_key(played(drums)) == Key(0, "major", 0.0)
    tune = [(0.0, 1.0, 62, 80, False), (1.0, 2.0, 69, 80, False), (3.0, 1.0, 66, 80, False)]
    assert find_key(played([*tune, *drums])) == find_key(played(tune))
    assert pitch_classes(played(tune)).tolist() == [0, 0, 0.25, 0, 0, 0, 0.25, 0, 0, 0.5, 0, 0]


def test_all_twelve_notes_alike_give_no_key() -> None:
    assert find_key(line(*range(60, 72))).certainty == 0
