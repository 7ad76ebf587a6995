"""Beats and bars of a time signature."""

import pytest

from etude.emotion.metre import beat_quarters, beats_per_bar


@pytest.mark.parametrize(
    ("metre", "quarters"),
    [("3/4", 1), ("6/8", 1.5), ("12/8", 1.5), ("3/8", 1.5), ("4/2", 2), ("2/8", 0.5), ("", 1)],
)
def test_the_beat_of_a_metre(metre: str, quarters: float) -> None:
    assert beat_quarters(metre) == quarters


@pytest.mark.parametrize(
    ("metre", "beats"), [("3/4", 3), ("6/8", 2), ("12/8", 4), ("3/8", 1), ("5/4", 5), ("", 4)]
)
def test_the_beats_of_a_bar(metre: str, beats: float) -> None:
    assert beats_per_bar(metre) == beats
