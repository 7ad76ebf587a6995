"""The learning rate goes up, then down, and remembers where it was."""

import math

import pytest

from etude.training.schedule import PlateauConfig, Schedule


def test_warm_up_then_cosine_to_the_floor() -> None:
    schedule = Schedule("cosine", total_steps=100, warmup_steps=10, floor=0.01)
    factors = [schedule.factor(step) for step in range(101)]
    assert factors[:10] == sorted(factors[:10])
    assert 0 < factors[0] < factors[9] < 1
    assert factors[10] == pytest.approx(1)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[100] == pytest.approx(0.01)


def test_plateau_cuts_only_without_progress() -> None:
    schedule = Schedule(
        "plateau", total_steps=100, warmup_steps=0, plateau=PlateauConfig(factor=0.5, patience=2)
    )
    for score in (0.1, 0.2, 0.3, 0.3, 0.3):
        schedule.observe(score)
    assert schedule.factor(50) == 1
    schedule.observe(math.nan)
    assert schedule.factor(50) == 0.5


def test_state_survives() -> None:
    plateau = PlateauConfig(factor=0.5, patience=0)
    first, second = (Schedule("plateau", total_steps=9, warmup_steps=0, plateau=plateau) for _ in range(2))
    for score in (0.5, 0.4, 0.3):
        first.observe(score)
    second.load_state_dict(first.state_dict())
    for schedule in (first, second):
        schedule.observe(0.45)
    assert first.factor(5) == second.factor(5) == 0.125
