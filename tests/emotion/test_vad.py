"""Feelings fit into a network's output and come back as they were; what is none is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.emotion.vad import EMBEDDING, HIGHEST, LOWEST, VAD, checked, decode, embed
from etude.errors import UserError

UNIT = st.floats(0, 1)
VADS = st.builds(VAD, st.floats(-1, 1), UNIT, UNIT, UNIT)
ROWS = st.lists(VADS, min_size=1, max_size=8).map(np.array)


@given(ROWS)
def test_an_embedding_fits_a_tanh_with_room_to_spare(rows: np.ndarray) -> None:
    embedding = embed(rows)
    assert embedding.shape == (len(rows), EMBEDDING)
    assert embedding.dtype == np.float32
    assert np.abs(embedding).max() < 0.95


def test_the_bound_is_reached_at_the_corners() -> None:
    """A factor that is needlessly small would waste the network's range."""
    corners = np.array(np.meshgrid(*zip(LOWEST, HIGHEST, strict=True))).reshape(4, -1).T
    assert np.abs(embed(corners)).max() > 0.9


@given(ROWS)
def test_what_was_embedded_is_decoded_exactly(rows: np.ndarray) -> None:
    assert decode(embed(rows)) == pytest.approx(rows, abs=1e-6)


@given(VADS, VADS, UNIT)
def test_the_embedding_is_linear(a: VAD, b: VAD, share: float) -> None:
    mixed = share * np.array([a]) + (1 - share) * np.array([b])
    expected = share * embed(np.array([a])) + (1 - share) * embed(np.array([b]))
    assert embed(mixed) == pytest.approx(expected, abs=1e-6)


def test_the_quarters_hold_what_facts_say() -> None:
    """The arousal quarter, 16..31, and the intensity quarter, 48..63, are inputs of their own."""
    embedding = embed(np.array([[0.9, 0.3, 0.6, 0.8]]))[0] * 1.5
    assert embedding[0] == pytest.approx(0.9)  # valence
    assert embedding[4] == pytest.approx(0.3)  # a quarter of a turn on, arousal
    assert embedding[16] == pytest.approx(0.3)
    assert embedding[20] == pytest.approx(0.6)
    assert embedding[32] == pytest.approx(0.6)
    assert embedding[36] == pytest.approx(0.8)
    assert embedding[48] == pytest.approx(0.8)
    assert embedding[52] == pytest.approx((0.9 + 0.3) / 2)


def test_any_output_of_a_network_is_decoded_to_a_feeling() -> None:
    embedding = np.random.default_rng(0).uniform(-1, 1, size=(50, EMBEDDING)).astype(np.float32)
    for row in decode(3 * embedding):
        checked(VAD(*row), "decoded")


def test_noise_on_an_embedding_moves_the_feeling_little() -> None:
    rng = np.random.default_rng(0)
    rows = np.array([[0.2, 0.5, 0.5, 0.5]] * 200)
    noisy = embed(rows) + 0.1 * rng.normal(size=(200, EMBEDDING))
    assert np.abs(decode(noisy) - rows).max() < 0.3


@given(VADS)
def test_a_feeling_within_its_ranges_passes_unchanged(vad: VAD) -> None:
    assert checked(vad, "here") == vad


@pytest.mark.parametrize("field", VAD._fields)
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.01, 1.01, 7.0])
def test_a_feeling_outside_its_range_is_refused_with_its_place_and_name(field: str, value: float) -> None:
    vad = VAD(0.0, 0.5, 0.5, 0.5)._replace(**{field: value})
    with pytest.raises(UserError, match=rf"labels.json, entry 3: {field} must lie between (-1|0) and 1, not"):
        checked(vad, "labels.json, entry 3")
