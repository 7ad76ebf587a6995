"""Skill over the best constant, and how sure it is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.evaluation.emotion import Hits, figures, interval, per_piece, skill, top


def test_the_constant_has_no_skill_and_a_model_without_error_all_of_it() -> None:
    constant = np.array([0.5, 1.0, 2.0, 0.1])
    piece = np.array([0, 0, 1, 2])
    assert figures(constant, constant, piece).skill == 0
    assert figures(np.zeros(4), constant, piece).skill == 1
    assert figures(2 * constant, constant, piece).skill == pytest.approx(-1)


def test_a_piece_counts_once_however_many_examples_it_has() -> None:
    loss = np.array([1.0] * 9 + [0.0])
    found = figures(loss, np.ones(10), np.array([7] * 9 + [9]))
    assert found.skill == pytest.approx(0.5)
    assert (found.n_pieces, found.n_examples) == (2, 10)


@given(st.integers(0, 1000))
def test_the_interval_holds_the_skill_and_is_narrower_with_more_pieces(seed: int) -> None:
    generator = np.random.default_rng(seed)
    constant = generator.uniform(0.5, 1.5, size=400)
    loss = constant * generator.uniform(0.2, 1.2, size=400)
    few, many = interval(loss[:20], constant[:20]), interval(loss, constant)
    assert many[0] <= skill(loss, constant) <= many[1]
    assert many[1] - many[0] < few[1] - few[0]


def test_a_model_that_guesses_has_zero_in_its_interval() -> None:
    generator = np.random.default_rng(3)
    target = generator.standard_normal((60, 8))
    guess = 0.2 * generator.standard_normal((60, 8))
    low, high = interval(((guess - target) ** 2).mean(axis=1), (target**2).mean(axis=1))
    assert low < 0 < high + 0.05


def test_shares_stand_beside_those_of_the_commonest_answer() -> None:
    answer = np.array([0, 0, 1, 2])
    guess = np.tile(np.bincount([0, 0, 1], minlength=4), (4, 1))
    right = np.eye(4)[answer]
    assert top(guess, answer, 1).tolist() == [True, True, False, False]
    assert top(guess, answer, 2).tolist() == [True, True, True, False]
    found = figures(
        np.zeros(4),
        np.ones(4),
        np.arange(4),
        shares={"hit": Hits(top(right, answer, 1), top(guess, answer, 1), 0.25)},
    )
    share = found.shares["hit"]
    assert (share.value, share.constant, share.chance) == (1.0, 0.5, 0.25)
    assert 0 <= share.more_low <= 0.5 <= share.more_high
    assert found.as_dict("test")["test/hit_constant"] == 0.5


def test_the_means_of_pieces_are_in_the_order_of_their_numbers() -> None:
    assert per_piece(np.array([3.0, 1.0, 5.0]), np.array([9, 2, 9])).tolist() == [1.0, 4.0]
