"""Labels that say only half become whole ones by one stated rule."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.emotion.vad import checked
from etude.errors import UserError
from etude.sources.pieces.base import QUADRANT, completed, quadrant

VALENCE, AROUSAL = st.floats(-1, 1), st.floats(0, 1)


@given(VALENCE, AROUSAL)
def test_what_is_known_is_kept_and_all_lies_in_its_range(valence: float, arousal: float) -> None:
    label = completed(valence, arousal, "listeners")
    assert label.vad[:2] == (valence, arousal)
    assert checked(label.vad, "here") == label.vad
    assert label.of == "listeners" and label.node is None


@given(VALENCE, AROUSAL, st.floats(0, 1))
def test_intensity_grows_with_the_distance_from_neutral(valence: float, arousal: float, share: float) -> None:
    whole = completed(valence, arousal, "x").vad.intensity
    nearer = completed(valence * share, 0.5 + (arousal - 0.5) * share, "x").vad.intensity
    assert nearer <= whole + 1e-9
    assert completed(0.0, 0.5, "x").vad.intensity == 0
    assert completed(0.0, 1.0, "x").vad.intensity == completed(-1.0, 0.5, "x").vad.intensity == 1


def test_dominance_follows_arousal_as_in_the_thesaurus() -> None:
    assert completed(0.0, 0.9, "x").vad.dominance > completed(0.0, 0.1, "x").vad.dominance
    assert completed(0.0, 0.5, "x").vad.dominance == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("valence", "arousal"), [(1.1, 0.5), (-2, 0.5), (0, -0.1), (0, 5), (math.nan, 0.5)])
def test_what_lies_outside_is_refused(valence: float, arousal: float) -> None:
    with pytest.raises(UserError, match=r"valence|arousal"):
        completed(valence, arousal, "x")


def test_a_quadrant_is_its_centre() -> None:
    centres = {(v, a): quadrant(v, a) for v in (True, False) for a in (True, False)}
    assert all(label.of == QUADRANT for label in centres.values())
    assert centres[True, True].vad[:2] == (0.5, 0.75)
    assert centres[False, False].vad[:2] == (-0.5, 0.25)
    assert len({label.vad.intensity for label in centres.values()}) == 1
