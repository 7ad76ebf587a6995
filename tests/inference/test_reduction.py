"""Reduced vectors rank as the whole ones do: exactly for small libraries, and nearly for large ones."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from etude.evaluation.metrics import unit
from etude.inference.reduction import Reduction, digest, fit_reduction, read_reduction, recall_lost


def vectors(n: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def clustered(n: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
    """Rows of length 1 around 20 centres in 30 dimensions, with a common mean and noise in all of them."""
    rng = np.random.default_rng(seed)
    mixed = np.random.default_rng(7).normal(size=(30, dim))
    centres = np.random.default_rng(8).normal(size=(20, 30))
    hidden = centres[rng.integers(20, size=n)] + 0.5 * rng.normal(size=(n, 30))
    return unit(mixed[0] * 5 + hidden @ mixed + rng.normal(size=(n, dim))).astype(np.float32)


def random_directions(dim: int, to: int) -> Reduction:
    return Reduction(np.linalg.qr(vectors(dim, to))[0])


@settings(deadline=None)
@given(n=st.integers(1, 30), dim=st.integers(1, 60), spare=st.integers(0, 20), seed=st.integers(0, 99))
def test_where_every_track_is_inside_the_cosines_are_those_of_whole_vectors(
    n: int, dim: int, spare: int, seed: int
) -> None:
    library, queries = vectors(n, dim, seed), vectors(5, dim, seed + 1000)
    reduction = fit_reduction(library, n + spare, seed)
    reduced, shares = reduction.queries(queries)
    cosines = (reduced @ reduction.tracks(library).T) * shares[:, None]
    np.testing.assert_allclose(cosines, unit(queries) @ unit(library).T, atol=1e-5)
    assert np.all(shares <= 1 + 1e-5)


@settings(deadline=None)
@given(n=st.integers(9, 40), to=st.integers(1, 8), seed=st.integers(0, 99))
def test_beyond_that_a_cosine_is_off_by_what_both_have_outside_at_most(n: int, to: int, seed: int) -> None:
    library, queries = vectors(n, 50, seed), vectors(5, 50, seed + 1000)
    reduction = fit_reduction(library, to, seed)
    reduced, shares = reduction.queries(queries)
    tracks = reduction.tracks(library)
    off = np.abs((reduced @ tracks.T) * shares[:, None] - unit(queries) @ unit(library).T)
    outside = np.sqrt(np.maximum(1 - shares**2, 0))
    assert np.all(off <= np.outer(outside, tracks[:, -1]) + 1e-5)
    np.testing.assert_allclose(np.linalg.norm(tracks, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(reduced, axis=1), 1.0, atol=1e-5)


def test_lengths_do_not_count_and_zeros_are_no_trouble() -> None:
    library = vectors(20, 40)
    reduction = fit_reduction(library, 8)
    np.testing.assert_allclose(reduction.tracks(9 * library), reduction.tracks(library), atol=1e-6)
    for some, other in zip(reduction.queries(9 * library), reduction.queries(library), strict=True):
        np.testing.assert_allclose(some, other, atol=1e-6)
    reduced, shares = reduction.queries(np.zeros((1, 40), np.float32))
    assert not reduced.any() and not shares.any()
    assert np.isfinite(fit_reduction(np.zeros((20, 40), np.float32), 8).basis_Dd).all()


def test_the_directions_are_those_of_largest_variance() -> None:
    library = clustered(700, 200)  # several blocks of rows
    kept = np.linalg.norm(library @ fit_reduction(library, 40).basis_Dd) ** 2
    most = (np.linalg.svd(library, compute_uv=False)[:40] ** 2).sum()
    assert kept == pytest.approx(most, rel=2e-3)


def test_a_seed_gives_the_same_directions_and_another_the_same_answers() -> None:
    library, queries = clustered(300, 100), clustered(20, 100, seed=1)
    first, again, other = (fit_reduction(library, 35, seed) for seed in (3, 3, 4))
    assert first.sha256 == again.sha256 != other.sha256
    assert recall_lost(library, queries, first) < 0.05
    assert recall_lost(library, queries, other) < 0.05


def test_recall_lost_is_the_share_of_the_nearest_that_is_missed() -> None:
    library, queries = clustered(400, 300), clustered(30, 300, seed=1)
    reduction = random_directions(300, 24)
    lost = []
    for query in queries:
        exact = sorted(range(400), key=lambda i: -float(library[i] @ query))[:7]
        reduced = reduction.queries(query[None])[0][0]
        found = sorted(range(400), key=lambda i: -float(reduction.tracks(library[i : i + 1])[0] @ reduced))[
            :7
        ]
        lost.append(len(set(exact) - set(found)) / 7)
    assert recall_lost(library, queries, reduction, k=7) == pytest.approx(np.mean(lost), abs=0.01)
    assert recall_lost(library, queries, fit_reduction(library, 24), k=7) < np.mean(lost) / 2
    assert recall_lost(library[:5], queries, reduction) == 0.0  # all five are found, in some order


def test_a_file_gives_back_what_was_saved_and_nothing_else(tmp_path: Path) -> None:
    reduction = fit_reduction(vectors(20, 40), 8)
    path = tmp_path / "new" / "a.npz"
    reduction.save(path)
    read = read_reduction(path)
    assert read is not None and read.sha256 == reduction.sha256
    assert [one.name for one in path.parent.iterdir()] == ["a.npz"]

    whole = path.read_bytes()
    for damaged in (b"", whole[:-40], whole[:200], b"noise" * 99):
        path.write_bytes(damaged)
        assert read_reduction(path) is None
    np.savez(path, basis_Dd=reduction.basis_Dd + 1, sha256=np.array(reduction.sha256))
    assert read_reduction(path) is None
    np.savez(path, basis_Dd=np.array([{}], object), sha256=np.array("a pickle"))
    assert read_reduction(path) is None
    assert read_reduction(tmp_path / "none.npz") is None


def test_a_digest_changes_with_numbers_their_kind_and_their_shape() -> None:
    rows = vectors(300, 6)
    changed = rows.copy()
    changed[299, 5] += 1
    others = [changed, rows.astype(np.float64), rows.reshape(600, 3), rows[:299]]
    assert len({digest(one) for one in [rows, *others]}) == 5
    assert digest(np.asfortranarray(rows)) == digest(rows)
