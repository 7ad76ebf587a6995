"""Terms are zero for a perfect student and one where that is promised."""

import pytest
import torch

from etude.objectives.distillation import DistillationWeights, distillation_terms
from etude.objectives.weighting import weighted_sum

torch.manual_seed(0)
TEACHER = torch.randn(64, 20) + 1.5
MEAN, VARIANCE = TEACHER.mean(0), TEACHER.var(0, unbiased=False)
ALL = DistillationWeights(cosine=1, mse=1, similarity=1)


def test_a_perfect_student_loses_nothing() -> None:
    terms = distillation_terms(TEACHER, TEACHER, MEAN, VARIANCE, ALL)
    assert set(terms) == {"cosine", "mse", "similarity"}
    assert all(abs(float(term)) < 1e-5 for term in terms.values())


def test_answering_the_mean_costs_one() -> None:
    terms = distillation_terms(MEAN.expand_as(TEACHER), TEACHER, MEAN, VARIANCE, ALL)
    assert float(terms["mse"]) == pytest.approx(1, rel=1e-4)


def test_only_the_mse_sees_length() -> None:
    terms = distillation_terms(2 * TEACHER, TEACHER, torch.zeros(20), VARIANCE, ALL)
    assert float(terms["cosine"]) == pytest.approx(0, abs=1e-6)
    assert float(terms["similarity"]) == pytest.approx(0, abs=1e-6)
    assert float(terms["mse"]) > 1


def test_a_term_without_weight_is_not_computed() -> None:
    terms = distillation_terms(TEACHER, TEACHER, MEAN, VARIANCE, DistillationWeights(cosine=0, mse=2))
    assert set(terms) == {"mse"}


def test_weights_multiply() -> None:
    terms = {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}
    assert float(weighted_sum(terms, {"a": 0.5, "b": 2.0, "c": 9.0})) == pytest.approx(7)
