import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.data import similar
from etude.data.similar import nearest_others, similar_tracks


@settings(deadline=None)
@given(
    n=st.integers(1, 12),
    k=st.integers(0, 14),
    seed=st.integers(0, 99),
    block=st.sampled_from([1, 100, 10**6]),
)
def test_agrees_with_sorting_every_pair(n: int, k: int, seed: int, block: int) -> None:
    # Small whole numbers: many cosines are equal, and equal ones must come in the order of their rows.
    vectors = np.random.default_rng(seed).integers(-1, 2, (n, 3)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similar, "BLOCK_BYTES", block)
        found = nearest_others(vectors, k)
    lengths = np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)
    for row in range(n):
        cosines = np.round(vectors @ vectors[row] / lengths / lengths[row], 4)
        expected = sorted((other for other in range(n) if other != row), key=lambda o: (-cosines[o], o))
        assert found[row].tolist() == expected[:k]


def test_names_the_nearest_others() -> None:
    vectors = np.array([[1, 0], [0, 1], [2, 0.1], [0.1, 3]])
    assert similar_tracks(["a", "b", "c", "d"], vectors, 1) == {
        "a": ("c",), "b": ("d",), "c": ("a",), "d": ("b",)
    }  # fmt: skip
    assert similar_tracks(["alone"], vectors[:1], 3) == {"alone": ()}


def test_twins_come_in_order_at_any_place() -> None:
    vector = np.random.default_rng(0).standard_normal(512)
    found = nearest_others(np.tile(vector, (301, 1)), 3)
    assert found[0].tolist() == [1, 2, 3]
    assert (found[3:] == [0, 1, 2]).all()


def test_bad_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        nearest_others(np.array([[1.0, np.nan], [1.0, 0.0]]), 1)
    with pytest.raises(ValueError, match="2 tracks have 1"):
        similar_tracks(["a", "b"], np.ones((1, 4)), 1)
