"""Figures mean what their names say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.evaluation.metrics import (
    best_constant_cosine,
    evaluate,
    neighbour_overlap,
    neighbour_overlaps,
    segment_weights,
    skill,
    unit,
)

RNG = np.random.default_rng(0)
N, D, TRACKS = 120, 16, 20
TRACK = np.repeat(np.arange(TRACKS), N // TRACKS)
TEACHER = RNG.normal(size=(N, D)) + 2.0
TEACHER_TRACKS = np.stack([TEACHER[i == TRACK].mean(axis=0) for i in range(TRACKS)])


def test_the_teacher_itself_is_perfect() -> None:
    metrics = evaluate(TEACHER * 3, TEACHER, TRACK, TEACHER_TRACKS)
    assert metrics.cosine == pytest.approx(1)
    assert metrics.skill == pytest.approx(1)
    assert metrics.track_skill == pytest.approx(1)
    assert metrics.overlap == pytest.approx(1)


def test_the_best_constant_has_no_skill_and_no_other_constant_beats_it() -> None:
    weight = np.full(N, 1 / N)
    best = best_constant_cosine(unit(TEACHER), weight)
    constant = np.tile(unit(TEACHER).mean(axis=0), (N, 1))
    assert evaluate(constant, TEACHER, TRACK, TEACHER_TRACKS).skill == pytest.approx(0, abs=1e-9)
    for other in RNG.normal(size=(200, D)) + 2.0:
        assert (unit(TEACHER) @ (other / np.linalg.norm(other))).mean() <= best + 1e-12


def test_noise_finds_neighbours_at_chance() -> None:
    overlaps = []
    for seed in range(100, 120):
        noise = np.random.default_rng(seed).normal(size=(N, D))
        metrics = evaluate(noise, TEACHER, TRACK, TEACHER_TRACKS)
        overlaps.append(metrics.overlap)
        assert metrics.overlap_chance == pytest.approx(10 / (N - N // TRACKS))
    assert np.mean(overlaps) == pytest.approx(metrics.overlap_chance, rel=0.15)


def test_own_track_is_no_neighbour() -> None:
    vectors = np.eye(TRACKS)[TRACK] + 1e-3 * RNG.normal(size=(N, TRACKS))
    overlap, _ = neighbour_overlap(
        unit(vectors), unit(RNG.normal(size=(N, TRACKS))), TRACK, np.full(N, 1 / N)
    )
    assert overlap < 0.3  # own segments, which both find nearest, would make this at least 0.5


def test_a_long_track_weighs_as_much_as_a_short_one() -> None:
    teacher = np.concatenate([np.tile([1.0, 0.0], (99, 1)), [[0.0, 1.0]]])
    student = np.tile([1.0, 0.0], (100, 1))
    track = np.array([0] * 99 + [1])
    assert evaluate(student, teacher, track, np.eye(2)).cosine == pytest.approx(0.5)


def test_too_few_candidates_give_no_overlap() -> None:
    metrics = evaluate(TEACHER[:12], TEACHER[:12], TRACK[:12], TEACHER_TRACKS[:2])
    assert np.isnan(metrics.overlap)
    assert np.isnan(skill(1.0, 1.0))


@settings(max_examples=30)
@given(st.floats(0.01, 100), st.integers(0, 1000))
def test_scale_does_not_matter(scale: float, seed: int) -> None:
    student = np.random.default_rng(seed).normal(size=(N, D)) + 1
    a = evaluate(student, TEACHER, TRACK, TEACHER_TRACKS)
    b = evaluate(student * scale, TEACHER, TRACK, TEACHER_TRACKS * scale)
    assert a.as_dict("x") == pytest.approx(b.as_dict("x"))


def test_many_segments_are_compared_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate(TEACHER + 0.5, TEACHER, TRACK, TEACHER_TRACKS)
    monkeypatch.setattr("etude.evaluation.metrics.ROWS", 7)
    assert evaluate(TEACHER + 0.5, TEACHER, TRACK, TEACHER_TRACKS) == whole


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_neighbours_are_those_of_a_loop_and_few_are_the_first_of_many(seed: int) -> None:
    generator = np.random.default_rng(seed)
    track = np.repeat(np.arange(9), generator.integers(1, 5, size=9))
    student, teacher = (unit(generator.normal(size=(len(track), 6))) for _ in range(2))
    weight = segment_weights(track)
    found = neighbour_overlaps(student, teacher, track, weight, (1, 3))
    for k in (1, 3):
        shared, chances = [], []
        for i in range(len(track)):
            others = [j for j in range(len(track)) if track[j] != track[i]]
            nearest = [set(sorted(others, key=lambda j: -(v[i] @ v[j]))[:k]) for v in (student, teacher)]
            shared.append(len(nearest[0] & nearest[1]) / k)
            chances.append(k / len(others))
        assert found[k] == pytest.approx((weight @ shared, weight @ chances))
        assert found[k] == pytest.approx(neighbour_overlap(student, teacher, track, weight, k))


def test_more_neighbours_than_there_are_candidates_are_nan_and_the_others_are_not() -> None:
    found = neighbour_overlaps(
        unit(TEACHER[:12]), unit(TEACHER[:12]), TRACK[:12], segment_weights(TRACK[:12]), (1, 5, 10)
    )
    assert found[1] == pytest.approx((1, 1 / 6))
    assert found[5] == pytest.approx((1, 5 / 6))
    assert np.isnan(found[10]).all()
