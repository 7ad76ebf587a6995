"""Both enrichments are what is said of them; neither gives NaN, and the corrected drowns no block."""

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from etude.errors import UserError
from etude.teachers.enrichment import BLOCKS, Block, Enrichment, EnrichmentConfig, enrich_published, fit

Windows = NDArray[np.float32]
VALUES = st.floats(-8, 8, width=32).map(lambda value: round(value * 64) / 64)
CORRECTED = EnrichmentConfig()


@st.composite
def windows(draw: st.DrawFn, least: int = 1, most: int = 9) -> Windows:
    shape = draw(st.integers(least, most)), draw(st.integers(1, 6))
    return draw(arrays(np.float32, shape, elements=VALUES))


def _quartile(values: Sequence[float], share: float) -> float:
    """By sorting, and walking to the place between two of them."""
    ordered, place = sorted(values), share * (len(values) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] * (1 - (place - below)) + ordered[above] * (place - below)


def _published(rows: Windows) -> list[float]:
    """Upstream's formula again, number by number, in plain Python."""
    columns = [[float(row[i]) for row in rows] for i in range(rows.shape[1])]
    mean = [math.fsum(column) / len(column) for column in columns]
    spread = [(_quartile(c, 0.75) - _quartile(c, 0.25)) / 1.3489795003921634 for c in columns]
    change = []
    for column in columns:
        steps = [after - before for before, after in pairwise(column)]
        change.append(math.fsum(steps) / len(steps) if steps else 0.0)
    joined = mean + spread + change
    length = math.sqrt(math.fsum(value * value for value in joined))
    return [value / length if length else 0.0 for value in joined]


def _corrected(rows: Windows, blocks: Sequence[Block]) -> list[float]:
    """Mean, spread and the slope of NumPy's polynomial, each at length 1, then all of them."""
    exact = rows.astype(np.float64)
    slope = np.polyfit(range(len(rows)), exact, 1)[0] if len(rows) > 1 else np.zeros(rows.shape[1])
    found: dict[Block, list[float]] = {
        "mean": list(np.add.reduce(exact) / len(rows)),
        "spread": [_quartile(list(column), 0.75) - _quartile(list(column), 0.25) for column in exact.T],
        "slope": list(slope),
    }
    scale = max(math.hypot(*row) for row in exact)
    parts = []
    for block in blocks:
        length = math.hypot(*found[block])
        parts += [value / length if length > 1e-9 * scale else 0.0 for value in found[block]]
    length = math.hypot(*parts)
    return [value / length if length else 0.0 for value in parts]


def _all_blocks() -> Enrichment:
    moving = np.array([[0.0, 1.0], [1.0, 2.0], [3.0, 5.0]], np.float32)
    return fit(CORRECTED, [moving])


@settings(max_examples=60)
@given(windows())
def test_the_published_vector_is_upstreams_formula(rows: Windows) -> None:
    np.testing.assert_allclose(enrich_published(rows), _published(rows), atol=1e-6)


@pytest.mark.parametrize("n", [1, 2])
def test_one_and_two_windows_are_enriched_as_published(n: int) -> None:
    rows = np.array([[3.0, 4.0], [3.0, 8.0]], np.float32)[:n]
    by_hand = {1: [3, 4, 0, 0, 0, 0], 2: [3, 6, 0, 2 / 1.3489795003921634, 0, 4]}[n]
    np.testing.assert_allclose(enrich_published(rows), by_hand / np.linalg.norm(by_hand), atol=1e-6)
    published = fit(EnrichmentConfig(variant="published"), [rows])
    np.testing.assert_array_equal(published.apply(rows), enrich_published(rows))
    assert published.dim(2) == 6


@settings(max_examples=60)
@given(windows())
def test_the_corrected_vector_is_made_of_blocks_of_one_length(rows: Windows) -> None:
    enrichment = _all_blocks()
    vector = enrichment.apply(rows)
    np.testing.assert_allclose(vector, _corrected(rows, BLOCKS), atol=1e-5)
    lengths = np.linalg.norm(vector.astype(np.float64).reshape(3, -1), axis=1)
    there = lengths[lengths > 0]
    np.testing.assert_allclose(there, 1 / math.sqrt(max(len(there), 1)), atol=1e-6)


@settings(max_examples=60)
@given(windows(), st.randoms(use_true_random=False))
def test_the_order_of_windows_moves_nothing_but_the_slope(rows: Windows, random: object) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    both = fit(CORRECTED, [np.array([[1.0], [1.0], [2.0], [2.0]], np.float32)]).model_copy(
        update={"blocks": ("mean", "spread")}
    )
    np.testing.assert_allclose(both.apply(rows), both.apply(rows[order]), atol=1e-6)


@settings(max_examples=60)
@given(windows(least=2), st.integers(-4, 4))
def test_reversed_time_flips_the_slope_and_louder_numbers_change_nothing(rows: Windows, octaves: int) -> None:
    enrichment = _all_blocks()
    forwards, backwards = (enrichment.apply(one).reshape(3, -1) for one in (rows, rows[::-1]))
    np.testing.assert_allclose(backwards, forwards * [[1], [1], [-1]], atol=1e-5)
    np.testing.assert_allclose(enrichment.apply(rows * 2.0**octaves).reshape(3, -1), forwards, atol=1e-6)


@settings(max_examples=60)
@given(windows(), st.sampled_from(get_args(EnrichmentConfig.model_fields["variant"].annotation)))
def test_a_vector_has_length_1_or_is_zero_and_is_never_nan(rows: Windows, variant: str) -> None:
    enrichment = _all_blocks().model_copy(update={"variant": variant})
    length = float(np.linalg.norm(enrichment.apply(rows).astype(np.float64)))
    assert length == 0.0 or length == pytest.approx(1.0, abs=1e-6)
    assert bool(length) or not rows.mean(axis=0).any()


def test_a_mean_of_zero_is_no_nan() -> None:
    vector = _all_blocks().apply(np.array([[1.0, -1.0], [-1.0, 1.0]], np.float32))
    assert np.isfinite(vector).all() and not vector[:2].any() and vector[2:].any()


def test_rounding_is_no_movement() -> None:
    """A tone that does not change gives windows that differ in their last digits; that is no spread."""
    same = np.full((700, 4), 0.1, np.float32)
    same[::2] = np.nextafter(same[::2], np.float32(1))
    assert not _all_blocks().apply(same)[4:].any()
    rising = same + np.linspace(0, 0.01, 700, dtype=np.float32)[:, None]
    assert np.linalg.norm(_all_blocks().apply(rising)[8:]) == pytest.approx(1 / math.sqrt(3), abs=1e-6)


def test_what_is_zero_in_a_whole_library_is_left_out_and_told() -> None:
    single = [np.array([[1.0, 2.0]], np.float32), np.array([[2.0, 0.0]], np.float32)]
    enrichment = fit(CORRECTED, single)
    assert (enrichment.blocks, enrichment.dim(2)) == (("mean",), 2)
    assert enrichment.describe() == (
        "corrected enrichment: mean of a track's windows; spread and slope are zero in all 2 tracks, 2 of "
        "which are one window: left out"
    )
    np.testing.assert_allclose(enrichment.apply(np.array([[3.0, 4.0], [3.0, 4.0]])), [0.6, 0.8], atol=1e-6)
    published = fit(EnrichmentConfig(variant="published"), single)
    assert published.blocks == BLOCKS and published.describe().endswith("kept as published")


def test_a_single_window_among_others_keeps_its_place_with_zeros() -> None:
    several = np.array([[1.0, 2.0], [2.0, 0.0], [4.0, 1.0]], np.float32)
    enrichment = fit(CORRECTED, [np.array([[3.0, 4.0]], np.float32), several])
    assert "left out" not in enrichment.describe()
    np.testing.assert_allclose(
        enrichment.apply(np.array([[3.0, 4.0]], np.float32)), [0.6, 0.8, 0, 0, 0, 0], atol=1e-6
    )


@settings(max_examples=60)
@given(st.lists(windows(), min_size=1, max_size=4), st.sampled_from(["corrected", "published"]))
def test_an_enrichment_survives_as_plain_values(library: list[Windows], variant: str) -> None:
    library = [np.ones((2, 3), np.float32), *(one[:, [0, 0, 0]] for one in library)]
    enrichment = fit(EnrichmentConfig.model_validate({"variant": variant}), library)
    again = Enrichment.model_validate_json(json.dumps(enrichment.model_dump(mode="json")))
    assert again == enrichment
    np.testing.assert_array_equal(again.apply(library[-1]), enrichment.apply(library[-1]))


def test_nothing_to_learn_from_is_refused() -> None:
    for library in ([], [np.zeros((3, 2), np.float32)]):
        with pytest.raises(UserError, match=rf"the {len(library)} tracks of this audio space"):
            fit(CORRECTED, library)
    with pytest.raises(ValueError, match=r"with at least one, not \[0, 4\]"):
        _all_blocks().apply(np.zeros((0, 4), np.float32))
