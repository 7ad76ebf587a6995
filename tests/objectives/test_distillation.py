"""Terms are least for a perfect student, mean what they say, and a learned scale stays finite."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from etude.objectives.distillation import (
    DistillationWeights,
    LogitScale,
    ObjectiveConfig,
    distillation_terms,
)
from etude.objectives.weighting import weighted_sum
from etude.training.optimizer import parameter_groups

torch.manual_seed(0)
TEACHER = torch.randn(64, 20) + 1.5
MEAN, VARIANCE = TEACHER.mean(0), TEACHER.var(0, unbiased=False)
ANCHORS = normalize(torch.randn(7, 20), dim=1)
EVERY_TERM = DistillationWeights(cosine=1, mse=1, similarity=1, kl=1, semantic=1)
ALL = ObjectiveConfig(weights=EVERY_TERM)
FOCAL = ObjectiveConfig(weights=EVERY_TERM, focal_gamma=0.5, focal_low=-0.5, focal_high=0.9)


def objective(**settings) -> ObjectiveConfig:
    weights = {name: settings.pop(name) for name in DistillationWeights.model_fields if name in settings}
    return ObjectiveConfig(weights=DistillationWeights(**{"cosine": 0, **weights}), **settings)


def terms(student: Tensor, config: ObjectiveConfig = ALL, teacher: Tensor = TEACHER, **more):
    more = {"mean_D": MEAN, "variance_D": VARIANCE, "anchors_AD": ANCHORS} | more
    return distillation_terms(student, teacher, config=config, **more)


def noisy(seed: int = 1, share: float = 1.0) -> Tensor:
    return TEACHER + share * torch.randn(TEACHER.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("config", [ALL, FOCAL, ALL.model_copy(update={"mse_on": "normalized"})])
def test_a_perfect_student_loses_nothing_and_another_something(config: ObjectiveConfig) -> None:
    perfect, other = terms(TEACHER.clone(), config), terms(noisy(), config)
    assert set(perfect) == {"cosine", "mse", "similarity", "kl", "semantic"}
    assert all(abs(float(term)) < 1e-5 for term in perfect.values())
    assert all(float(term) > 1e-3 for term in other.values())


@pytest.mark.parametrize("config", [ALL, FOCAL])
def test_gradients_of_a_perfect_student_are_finite(config: ObjectiveConfig) -> None:
    student = TEACHER.clone().requires_grad_()
    weighted_sum(terms(student, config), config.weights.model_dump()).backward()
    assert torch.isfinite(student.grad).all()


def test_without_weights_the_figures_are_the_plain_ones() -> None:
    student = noisy()
    found = terms(student)
    assert torch.equal(found["cosine"], 1 - cosine_similarity(student, TEACHER, dim=1).mean())
    squared = (student - TEACHER).square().sum(dim=1)
    assert torch.equal(found["mse"], squared.mean() / VARIANCE.sum())
    s, t = (normalize(x - MEAN, dim=1) for x in (student, TEACHER))
    assert torch.equal(found["similarity"], (s @ s.T - t @ t.T).square().mean())


def test_answering_the_mean_costs_one() -> None:
    found = terms(MEAN.expand_as(TEACHER), objective(mse=1))
    assert float(found["mse"]) == pytest.approx(1, rel=1e-4)


def test_only_the_raw_mse_and_the_kl_see_length() -> None:
    found = terms(2 * TEACHER, mean_D=torch.zeros(20))
    assert float(found["mse"]) > 1
    assert float(found["kl"]) > 0.01
    assert all(abs(float(found[name])) < 1e-5 for name in ("cosine", "similarity", "semantic"))
    assert abs(float(terms(2 * TEACHER, objective(mse=1, mse_on="normalized"))["mse"])) < 1e-5


def test_the_mse_of_unit_vectors_is_the_same_raw_or_normalized() -> None:
    teacher, student = normalize(TEACHER, dim=1), normalize(noisy(), dim=1)
    statistics = {"mean_D": teacher.mean(0), "variance_D": teacher.var(0, unbiased=False)}
    raw, normalized = (
        terms(student, objective(mse=1, mse_on=on), teacher, **statistics)["mse"]
        for on in ("raw", "normalized")
    )
    assert float(normalized) == pytest.approx(float(raw), rel=1e-5)


def test_divergences_are_pytorchs() -> None:
    student = noisy()
    found = terms(student, objective(kl=1, semantic=1, temperature=2.0, semantic_temperature=0.5))
    kl = torch.nn.functional.kl_div(
        (student / 2).log_softmax(1), (TEACHER / 2).softmax(1), reduction="batchmean"
    )
    assert float(found["kl"]) == pytest.approx(4 * float(kl), rel=1e-5)
    s, t = (cosine_similarity(x[:, None], ANCHORS[None], dim=2) / 0.5 for x in (student, TEACHER))
    semantic = torch.nn.functional.kl_div(s.log_softmax(1), t.softmax(1), reduction="batchmean")
    assert float(found["semantic"]) == pytest.approx(float(semantic), rel=1e-4)


def test_a_term_without_weight_is_not_computed() -> None:
    assert set(terms(TEACHER, objective(mse=2), anchors_AD=None)) == {"mse"}


@settings(max_examples=25)
@given(st.permutations(range(12)), st.sampled_from([ALL, FOCAL]), st.booleans())
def test_the_batchs_order_does_not_matter(order: list[int], config: ObjectiveConfig, weigh: bool) -> None:
    student, teacher, weight = noisy()[:12], TEACHER[:12], torch.arange(12.0)
    straight = terms(student, config, teacher, weight_B=weight if weigh else None)
    shuffled = terms(student[order], config, teacher[order], weight_B=weight[order] if weigh else None)
    for name, term in straight.items():
        assert float(shuffled[name]) == pytest.approx(float(term), rel=1e-5)


@pytest.mark.parametrize("config", [ALL, FOCAL])
def test_a_weight_is_how_often_an_item_counts(config: ObjectiveConfig) -> None:
    student, teacher, counts = noisy()[:6], TEACHER[:6], torch.tensor([3, 1, 0, 2, 1, 1])
    weighted = terms(student, config, teacher, weight_B=counts.float() * 0.1)
    repeated = terms(student.repeat_interleave(counts, 0), config, teacher.repeat_interleave(counts, 0))
    for name, term in repeated.items():
        assert float(weighted[name]) == pytest.approx(float(term), rel=1e-4)


def test_a_batch_without_any_weight_costs_nothing_and_stays_finite() -> None:
    student = noisy().requires_grad_()
    found = terms(student, FOCAL, weight_B=torch.zeros(64))
    weighted_sum(found, FOCAL.weights.model_dump()).backward()
    assert all(term.detach() == 0 for term in found.values())
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_focal_weights_leave_out_what_is_learned_and_favour_what_is_not() -> None:
    teacher = torch.eye(3)
    student = torch.tensor([[0.9, math.sqrt(1 - 0.81), 0], [0, 0.7, math.sqrt(1 - 0.49)], [1, 0, 0]])
    config = objective(cosine=1, focal_gamma=2, focal_low=0.6, focal_high=0.8)
    found = terms(student, config, teacher, mean_D=torch.zeros(3), variance_D=torch.ones(3))["cosine"]
    weights = torch.tensor([0.0, 0.3**2 * 0.5, 1.0])  # cosines 0.9, 0.7 and 0
    expected = (weights * torch.tensor([0.1, 0.3, 1.0])).sum() / weights.sum()
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_focal_weights_are_of_items_not_of_pairs_and_carry_no_gradient() -> None:
    assert torch.equal(terms(noisy(), FOCAL)["similarity"], terms(noisy(), ALL)["similarity"])
    student = noisy()[:1].requires_grad_()  # one item alone has weight 1, whatever its focal weight is
    gradients = []
    for config in (FOCAL, ALL):
        (gradient,) = torch.autograd.grad(terms(student, config, TEACHER[:1])["cosine"], student)
        gradients.append(gradient)
    assert torch.allclose(*gradients, atol=1e-7)


def test_half_precision_inputs_are_computed_in_float32() -> None:
    student, teacher = noisy().bfloat16(), TEACHER.bfloat16()
    expected = terms(student.float(), teacher=teacher.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = terms(student, teacher=teacher)
    for name, term in found.items():
        assert term.dtype == torch.float32
        assert torch.equal(term, expected[name])


def test_a_learned_scale_finds_its_finite_optimum() -> None:
    config = objective(cosine=1, logit_scale="learned")
    module = LogitScale(config)
    assert module.scale().item() == pytest.approx(math.exp(2.6592), rel=1e-4)
    student = noisy(share=0.8)
    distance = float(terms(student, objective(cosine=1))["cosine"])
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        terms(student, config, scale=module.scale())["cosine"].backward()
        optimizer.step()
    assert module.scale().item() == pytest.approx(1 / distance, rel=1e-2)
    module.reset()
    assert module.scale().item() == pytest.approx(math.exp(2.6592), rel=1e-4)


@pytest.mark.parametrize(("cosine", "end"), [(1, 50.0), (-1, 1.0)])
def test_a_learned_scale_keeps_its_bounds_and_its_gradient(cosine: int, end: float) -> None:
    config = objective(cosine=1, logit_scale="learned")
    module = LogitScale(config)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    student = cosine * TEACHER
    for _ in range(500):
        optimizer.zero_grad()
        terms(student, config, scale=module.scale())["cosine"].backward()
        optimizer.step()
        assert 1 <= module.scale().item() <= 50.001
    assert module.scale().item() == pytest.approx(end, rel=0.1)
    terms(-student, config, scale=module.scale())["cosine"].backward()
    assert module.logit_scale.grad.abs() > 0


@pytest.mark.parametrize("kind", ["none", "fixed", "learned"])
def test_the_scaled_cosine_is_what_its_kind_says(kind: str) -> None:
    config = objective(cosine=1, logit_scale=kind)
    scale = LogitScale(config).scale()
    found, plain = (float(t["cosine"]) for t in (terms(noisy(), config, scale=scale), terms(noisy())))
    kappa = math.exp(2.6592)
    expected = {"none": plain, "fixed": kappa * plain, "learned": kappa * plain - 2.6592}[kind]
    assert found == pytest.approx(expected, rel=1e-4)


def test_only_a_learned_scale_is_a_parameter_and_it_does_not_decay() -> None:
    modules = {
        kind: LogitScale(objective(cosine=1, logit_scale=kind)) for kind in ("none", "fixed", "learned")
    }
    assert [name for name, _ in modules["learned"].named_parameters()] == ["logit_scale"]
    assert not any(group.decayed and group.parameters for group in parameter_groups(modules["learned"]))
    assert not modules["none"].state_dict() and not modules["fixed"].state_dict()
    assert modules["none"].scale() is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cosine": 0}, "at least one weight"),
        ({"cosine": 1, "focal_low": 0.8, "focal_high": 0.8}, "must be below focal_high"),
        ({"cosine": 1, "temperature": 0}, "greater than 0"),
        ({"mse": 1, "logit_scale": "fixed"}, "scales the cosine term"),
        ({"cosine": 1, "logit_scale": "fixed", "logit_scale_init": 5}, "above logit_scale_max"),
        ({"cosine": 1, "logit_scale": "learned", "logit_scale_init": 0}, "must lie between"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        objective(**wrong)


def test_what_a_term_needs_must_be_given() -> None:
    with pytest.raises(AssertionError, match="anchors"):
        terms(TEACHER, objective(semantic=1), anchors_AD=None)
    with pytest.raises(AssertionError, match="LogitScale"):
        terms(TEACHER, objective(cosine=1, logit_scale="learned"))


def test_weights_multiply() -> None:
    found = {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}
    assert float(weighted_sum(found, {"a": 0.5, "b": 2.0, "c": 9.0})) == pytest.approx(7)
