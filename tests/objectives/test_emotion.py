"""Terms are 0 for a perfect network, about 1 for one that knows nothing, and read weights of items."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from etude.emotion.models import MODELS, Model
from etude.objectives.emotion import (
    EmotionObjective,
    RecognizerWeights,
    output_terms,
    recognizer_terms,
    weights_of,
)  # fmt: skip
from etude.objectives.weighting import weighted_sum

torch.manual_seed(0)
USUAL, HUBER = EmotionObjective(), EmotionObjective(huber_delta=0.5, groove="mse")
EMBEDDING = 0.9 * (2 * torch.rand(40, 64) - 1)
CATEGORY, NODE = torch.arange(40) % 6, 5 * torch.arange(40)
SHARES = {
    "melody": torch.rand(40, 128).square(),
    "harmony": torch.nn.functional.one_hot(torch.arange(64).repeat(2)[24:64], 64).float(),
    "dynamics": 0.05 + 0.9 * torch.rand(40, 16),
    "groove": (torch.rand(40, 32) - 0.5).clamp_min(0),  # many steps are empty
}
TARGETS = {
    name: t / t.sum(1, keepdim=True) if name in ("melody", "harmony") else t for name, t in SHARES.items()
}
LAST_FOUR: list[Model] = ["melody", "harmony", "dynamics", "groove"]


def certain(classes: Tensor, n: int) -> Tensor:
    return 30 * torch.nn.functional.one_hot(classes, n).float()


def recognised(embedding: Tensor = EMBEDDING, config: EmotionObjective = USUAL, **more) -> dict[str, Tensor]:
    given = {
        "heads": (certain(CATEGORY, 6), certain(NODE, 216)),
        "target_BE": EMBEDDING, "category": CATEGORY, "node": NODE,
        "variance_E": EMBEDDING.var(0, correction=0),
    }  # fmt: skip
    return recognizer_terms(embedding, config=config, **given | more)


def given(model: Model, logits: Tensor, config: EmotionObjective = USUAL, **more) -> Tensor:
    target = more.pop("target", TARGETS[model])
    spread = TARGETS[model].var(0, correction=0)
    (term,) = output_terms(model, logits, target, variance_O=spread, config=config, **more).values()
    return term


def perfect(model: Model) -> Tensor:
    target = TARGETS[model]
    return target.clamp_min(1e-12).log() if model in ("melody", "harmony") else target.logit(1e-7)


def test_a_perfect_recogniser_loses_nothing_and_one_that_knows_nothing_about_one() -> None:
    for config in (USUAL, HUBER):
        assert all(float(term) < 1e-5 for term in recognised(config=config).values())
    mean = EMBEDDING.mean(0).expand_as(EMBEDDING)
    ignorant = recognised(mean, heads=(torch.zeros(40, 6), torch.zeros(40, 216)))
    assert {name: float(term) for name, term in ignorant.items()} == pytest.approx(
        {"embedding": 1.0, "category": 1.0, "node": 1.0}, abs=1e-4
    )
    assert 0.3 < float(recognised(mean, HUBER)["embedding"]) < 1


@pytest.mark.parametrize("model", LAST_FOUR)
@pytest.mark.parametrize("config", [USUAL, HUBER])
def test_the_others_are_least_where_they_are_right(model: Model, config: EmotionObjective) -> None:
    logits = perfect(model).requires_grad_()
    least = given(model, logits, config)
    least.backward()
    assert abs(float(least.detach())) < 1e-4
    assert torch.isfinite(logits.grad).all()
    assert float(given(model, perfect(model) * torch.rand(TARGETS[model].shape), config)) > 1e-3


def test_the_best_constant_is_the_mean_and_what_divergences_cost_is_pytorchs() -> None:
    for model in LAST_FOUR:
        mean = TARGETS[model].mean(0)
        constant = mean.clamp_min(1e-6).log() if model in ("melody", "harmony") else mean.logit()
        best = float(given(model, constant.expand_as(TARGETS[model])))
        for _ in range(5):
            other = constant + 0.2 * torch.randn_like(constant)
            assert float(given(model, other.expand_as(TARGETS[model]))) > best
    logits = torch.randn(40, 128)
    kl = torch.nn.functional.kl_div(logits.log_softmax(1), TARGETS["melody"], reduction="batchmean")
    assert float(given("melody", logits)) == pytest.approx(float(kl), rel=1e-5)
    assert float(given("dynamics", torch.zeros(40, 16), target=torch.full((40, 16), 0.5))) == 0


def test_extreme_logits_stay_finite() -> None:
    for model in LAST_FOUR:
        logits = (1e4 * torch.randn(40, TARGETS[model].shape[1])).requires_grad_()
        given(model, logits).backward()
        assert torch.isfinite(logits.grad).all()


def test_probabilities_of_classes_are_what_their_only_class_is() -> None:
    logits = (torch.randn(40, 6), torch.randn(40, 216))
    soft = {"category": torch.eye(6)[CATEGORY], "node": torch.eye(216)[NODE]}
    plain, same = recognised(heads=logits), recognised(heads=logits, **soft)
    for name in ("category", "node"):
        assert float(same[name]) == pytest.approx(float(plain[name]), rel=1e-5)
    shared = (torch.eye(216)[NODE] + torch.eye(216)[NODE + 1]) / 2
    met = recognised(heads=(logits[0], shared.clamp_min(1e-12).log()), node=shared)
    assert abs(float(met["node"])) < 1e-5


@pytest.mark.parametrize("config", [USUAL, HUBER])
def test_a_weight_is_how_often_an_item_counts(config: EmotionObjective) -> None:
    counts = torch.tensor([3, 0, 1, 2])
    weight, again = counts.float() * 0.1, torch.arange(4).repeat_interleave(counts)
    for model in LAST_FOUR:
        logits, target = torch.randn(4, TARGETS[model].shape[1]), TARGETS[model][:4]
        weighted = given(model, logits, config, target=target, weight_B=weight)
        assert float(weighted) == pytest.approx(
            float(given(model, logits[again], config, target=target[again]))
        )
    found, heads = torch.rand(4, 64), (torch.randn(4, 6), torch.randn(4, 216))
    every = {"target_BE": EMBEDDING[:4], "category": CATEGORY[:4], "node": NODE[:4]}
    repeated = {name: value[again] for name, value in every.items()}
    weighted = recognised(found, config, heads=heads, weight_B=weight, **every)
    plain = recognised(found[again], config, heads=(heads[0][again], heads[1][again]), **repeated)
    for name, term in plain.items():
        assert float(weighted[name]) == pytest.approx(float(term), rel=1e-5)


def test_half_precision_is_computed_in_float32() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        for model in LAST_FOUR:
            assert given(model, perfect(model).bfloat16()).dtype == torch.float32
        assert all(term.dtype == torch.float32 for term in recognised(EMBEDDING.bfloat16()).values())


def test_terms_have_their_weights_and_a_term_without_is_not_computed() -> None:
    for config in (USUAL, HUBER):
        assert set(weights_of("recognizer", config)) == set(recognised(config=config))
        for model in LAST_FOUR:
            found = output_terms(
                model, perfect(model), TARGETS[model],
                variance_O=torch.ones(TARGETS[model].shape[1]), config=config,
            )  # fmt: skip
            assert set(weights_of(model, config)) == set(found)
            assert math.isfinite(float(weighted_sum(found, weights_of(model, config))))
    assert set(weights_of("groove", HUBER)) == {"error"} != set(weights_of("groove", USUAL))
    alone = EmotionObjective(recognizer=RecognizerWeights(category=0, node=0))
    assert set(recognised(config=alone)) == {"embedding"}
    with pytest.raises(ValidationError, match="embedding must be above 0"):
        RecognizerWeights(embedding=0)
    assert set(MODELS) == {"recognizer", *LAST_FOUR}
