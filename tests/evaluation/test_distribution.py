"""Spreads weigh tracks alike, and an interval holds what other tracks would show."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.evaluation.distribution import PERCENTILES, constant_cosines, distribution, skill_interval, spread
from etude.evaluation.metrics import evaluate, segment_weights, unit

RNG = np.random.default_rng(1)
TRACK = np.repeat(np.arange(20), 6)
TEACHER = RNG.normal(size=(120, 16)) + 1.0
TRACKS = np.stack([TEACHER[i == TRACK].mean(axis=0) for i in range(20)])


def test_the_teacher_itself_is_without_error() -> None:
    found = distribution(TEACHER, TEACHER, TRACK, TRACKS)
    assert found.mse == found.mse_unit == 0
    assert found.cosine.mean == pytest.approx(1)
    assert found.cosine.std == pytest.approx(0, abs=1e-7)
    assert found.student_length == found.teacher_length
    assert found.skill_interval == pytest.approx((1, 1))
    assert found.track_skill_interval == pytest.approx((1, 1))


def test_the_best_constants_have_the_errors_of_constants() -> None:
    weight = segment_weights(TRACK)
    raw = np.tile(weight @ TEACHER, (120, 1))
    assert distribution(raw, TEACHER, TRACK, TRACKS).mse == pytest.approx(
        distribution(TEACHER, TEACHER, TRACK, TRACKS).mse_constant
    )
    direction = np.tile(weight @ unit(TEACHER), (120, 1))
    of_direction = distribution(direction, TEACHER, TRACK, TRACKS)
    assert of_direction.mse_unit == pytest.approx(of_direction.mse_unit_constant)
    assert of_direction.skill_interval == pytest.approx((0, 0), abs=1e-9)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(2, 12))
def test_figures_are_those_of_a_loop_over_tracks(seed: int, n_tracks: int) -> None:
    generator = np.random.default_rng(seed)
    track = np.concatenate([[i] * int(generator.integers(1, 5)) for i in range(n_tracks)])
    student, teacher = generator.normal(size=(2, len(track), 8)) + 0.5
    tracks = generator.normal(size=(n_tracks, 8))
    found = distribution(student, teacher, track, tracks)
    errors, cosines, lengths = [], [], []
    for i in range(n_tracks):
        s, t = student[track == i], teacher[track == i]
        errors.append(((s - t) ** 2).mean())
        cosines.append(
            np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(s, t, strict=True)])
        )
        lengths.append(np.mean([np.linalg.norm(a) for a in s]))
    assert found.mse == pytest.approx(np.mean(errors))
    assert found.cosine.mean == pytest.approx(np.mean(cosines))
    assert found.student_length.mean == pytest.approx(np.mean(lengths))
    metrics = evaluate(student, teacher, track, tracks)
    assert found.cosine.mean == pytest.approx(metrics.cosine)
    assert found.track_cosine.mean == pytest.approx(metrics.track_cosine)
    assert found.mse_unit == pytest.approx(2 * (1 - metrics.cosine) / 8)


@given(st.lists(st.tuples(st.floats(-1, 1), st.integers(1, 5)), min_size=1, max_size=30))
def test_a_weight_is_so_many_equal_values(pairs: list[tuple[float, int]]) -> None:
    values, counts = (np.array(column) for column in zip(*pairs, strict=True))
    weighted = spread(values.astype(float), counts / counts.sum())
    repeated = np.repeat(values.astype(float), counts)
    assert weighted.mean == pytest.approx(repeated.mean(), abs=1e-12)
    assert weighted.std == pytest.approx(repeated.std(), abs=1e-9)
    ordered = list(weighted.percentiles.values())
    assert ordered == sorted(ordered)
    for p in PERCENTILES:
        at_or_below = (repeated <= weighted.percentiles[p]).mean()
        assert at_or_below >= p / 100 - 1e-9
        assert (repeated < weighted.percentiles[p]).mean() <= p / 100 + 1e-9


@pytest.mark.parametrize("n", [5, 9, 40])
def test_a_skill_lies_inside_its_interval_also_with_few_tracks(n: int) -> None:
    for seed in range(20):
        generator = np.random.default_rng(seed)
        teacher = generator.normal(size=(n, 16)) + 0.5
        student = teacher + generator.normal(size=(n, 16))
        found = distribution(student, teacher, np.arange(n), teacher)
        skill = evaluate(student, teacher, np.arange(n), teacher).skill
        low, high = found.skill_interval
        assert low < skill < high
        assert found.track_skill_interval == pytest.approx((low, high))


def test_more_tracks_make_a_narrower_interval() -> None:
    widths = []
    for n in (20, 500):
        generator = np.random.default_rng(n)
        low, high = skill_interval(generator.uniform(0.7, 1.0, size=n), generator.uniform(0.2, 0.6, size=n))
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_an_interval_holds_the_skill_of_all_tracks_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    population = unit(generator.normal(size=(5000, 8)) + 1)
    cosines = generator.uniform(0.75, 1.0, size=5000)
    constant = np.linalg.norm(population.mean(axis=0))
    truth = (cosines.mean() - constant) / (1 - constant)
    held = 0
    for _ in range(200):
        drawn = generator.integers(0, 5000, size=80)
        low, high = skill_interval(cosines[drawn], constant_cosines(population[drawn]), draws=300)
        held += low <= truth <= high
    assert 0.88 < held / 200 < 0.995


def test_without_a_choice_of_tracks_there_is_no_interval() -> None:
    assert np.isnan(skill_interval(np.ones(1), np.zeros(1))).all()
    assert np.isnan(skill_interval(np.ones(3), np.ones(3))).all()
    found = distribution(TEACHER[:6], TEACHER[:6] + 1, TRACK[:6], TRACKS[:1])
    assert np.isnan(found.skill_interval).all()
    assert np.isfinite(found.cosine.mean)
