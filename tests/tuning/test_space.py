"""A search space draws what it says, the same every time, and is refused where it does not fit."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from etude.errors import UserError
from etude.experiments.audio import AudioExperiment
from etude.tuning.space import Distribution, check_space, sample
from etude.tuning.sweep import draw
from etude.tuning.trial import SweepConfig

SPACE = {
    "student.width": Distribution(choice=[0.2, 0.4]),
    "training.learning_rate": Distribution(loguniform=(1e-4, 1e-2)),
    "student.dropout": Distribution(uniform=(0.0, 0.5)),
    "training.warmup_epochs": Distribution(quniform=(0.0, 2.0, 0.5)),
    "sampling.segments_per_track": Distribution(randint=(1, 4)),
}


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30))
def test_draws_are_within_bounds_and_repeat(seed: int, n: int) -> None:
    drawn = sample(SPACE, n, [seed, 1])
    assert drawn == sample(SPACE, n, [seed, 1])
    assert len(drawn) == n
    for overrides in drawn:
        assert overrides["student.width"] in (0.2, 0.4)
        assert 1e-4 <= overrides["training.learning_rate"] <= 1e-2
        assert 0 <= overrides["student.dropout"] <= 0.5
        assert overrides["training.warmup_epochs"] % 0.5 == 0
        assert overrides["sampling.segments_per_track"] in (1, 2, 3)


def test_more_trials_begin_with_the_same_ones() -> None:
    assert sample(SPACE, 9, [0, 1])[:4] == sample(SPACE, 4, [0, 1])
    assert sample(SPACE, 9, [0, 2]) != sample(SPACE, 9, [0, 1])


@pytest.mark.parametrize(
    "given_",
    [
        {},
        {"choice": [1], "uniform": (0, 1)},
        {"uniform": (2, 1)},
        {"uniform": (0, math.inf)},
        {"loguniform": (0, 1)},
        {"quniform": (0, 1, 0)},
        {"quniform": (0, 1, -0.5)},
        {"quniform": (0, 1, 0.3)},
        {"choise": [1]},
    ],
)
def test_a_distribution_is_exactly_one_thing(given_: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Distribution(**given_)


def test_what_is_listed_is_drawn_as_it_stands() -> None:
    for listed in ([2.65926, 0.123456], [None, "best.pt"], [[], ["optimizer"]], [1, 0.5]):
        drawn = sample({"seed": Distribution(choice=listed)}, 12, [0])
        assert all(any(one["seed"] is value or one["seed"] == value for value in listed) for one in drawn)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("student.widht", "did you mean student.width?"),
        ("recipe.n_mels", "trials must share recipe"),
        ("split.seed", "trials must share split"),
    ],
)
def test_a_key_that_cannot_vary_is_named(key: str, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        check_space([key], AudioExperiment)


@pytest.mark.parametrize(
    "sweep",
    [
        SweepConfig(),
        SweepConfig(space={"seed": Distribution(choice=[1])}, cases={"a": {"seed": 1}}),
    ],
)
def test_trials_are_drawn_or_listed(sweep: SweepConfig) -> None:
    with pytest.raises(UserError, match=r"either sweep\.space.*or sweep\.cases"):
        draw(AudioExperiment(), sweep, (0, 0))


def test_listed_trials_are_those() -> None:
    sweep = SweepConfig(cases={"plain": {}, "wide": {"student.width": 0.8}})
    assert draw(AudioExperiment(), sweep, (0, 0)) == [{}, {"student.width": 0.8}]
    with pytest.raises(UserError, match="trials must share recipe"):
        draw(AudioExperiment(), SweepConfig(cases={"a": {"recipe.n_mels": 64}}), (0, 0))


def test_a_value_that_no_trial_can_have_is_told_before_any_work() -> None:
    sweep = SweepConfig(space={"student.width": Distribution(choice=[-1])}, trials=2)
    with pytest.raises(UserError, match=r"search space draws .*student.width"):
        draw(AudioExperiment(), sweep, (0, 0))
