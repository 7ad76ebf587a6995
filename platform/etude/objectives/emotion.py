"""What the emotion networks are asked for, as named terms; each is 0 for a perfect network.

Distributions are compared by their divergence, numbers by their squared or Huber error. Errors are over the
targets' variance and heads over the logarithm of their classes, so that an answer that knows nothing costs
about 1 whichever the term is, and the weights can be read as shares.
"""

import math
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from etude.config import Section
from etude.emotion.models import Model
from etude.objectives.terms import weighted_mean

_TINY = 1e-12


class RecognizerWeights(Section):
    """How much each term of the recogniser counts; 0 leaves it out."""

    embedding: float = Field(1.0, ge=0, description="error of the 64-d embedding")
    category: float = Field(0.1, ge=0, description="cross entropy of the six categories")
    node: float = Field(0.1, ge=0, description="cross entropy of the 216 nodes")

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not self.embedding:
            raise ValueError("embedding must be above 0: the heads beside it are not in any export")
        return self


class EmotionObjective(Section):
    """What the networks are asked for; every network reads what concerns it."""

    recognizer: RecognizerWeights = RecognizerWeights()
    huber_delta: float | None = Field(
        None,
        gt=0,
        description="of embedding, dynamics and groove's mse: errors beyond so many spreads of the target "
        "count linearly; None: all are squared",
    )
    groove: Literal["bce", "mse"] = Field("bce", description="bce: onsets and accents as soft yes or no")


def weights_of(model: Model, config: EmotionObjective) -> dict[str, float]:
    """Weight of every term that a network's loss may have."""
    if model == "recognizer":
        return config.recognizer.model_dump()
    return {_term_of(model, config): 1.0}


def recognizer_terms(
    embedding_BE: Tensor,
    heads: tuple[Tensor, Tensor],
    *,
    target_BE: Tensor,
    category: Tensor,
    node: Tensor,
    variance_E: Tensor,
    config: EmotionObjective,
    weight_B: Tensor | None = None,
) -> dict[str, Tensor]:
    """The recogniser's terms that have a weight.

    `heads` are `EmotionNetwork.heads`. Category and node are int64 [b], or probabilities [b, 6] and
    [b, 216] where an item is a little of several. `variance_E` is the target's over the training set, and
    `weight_B` [b] >= 0 says how much an item counts.
    """
    with torch.autocast(embedding_BE.device.type, enabled=False):
        weights, found = config.recognizer, dict[str, Tensor]()
        if weights.embedding:
            error_B = _error(embedding_BE.float(), target_BE.float(), variance_E.float(), config.huber_delta)
            found["embedding"] = weighted_mean(error_B, weight_B)
        for name, logits_BC, target in (("category", heads[0], category), ("node", heads[1], node)):
            if getattr(weights, name):
                surprise_B = _surprise(logits_BC.float(), target) / math.log(logits_BC.shape[1])
                found[name] = weighted_mean(surprise_B, weight_B)
    return found


def output_terms(
    model: Model,
    logits_BO: Tensor,
    target_BO: Tensor,
    *,
    variance_O: Tensor,
    config: EmotionObjective,
    weight_B: Tensor | None = None,
) -> dict[str, Tensor]:
    """The one term of melody, harmony, dynamics or groove, of `EmotionNetwork.logits`.

    "kl": targets [b, n] sum to 1. "bce" and "error": they lie within 0 and 1. Variance and weight are those
    of `recognizer_terms`.
    """
    name = _term_of(model, config)
    with torch.autocast(logits_BO.device.type, enabled=False):
        logits, target = logits_BO.float(), target_BO.float()
        if name == "kl":
            cost_B = _surprise(logits, target)
        elif name == "bce":
            cost_B = _soft_yes_or_no(logits, target)
        else:
            cost_B = _error(logits.sigmoid(), target, variance_O.float(), config.huber_delta)
        return {name: weighted_mean(cost_B, weight_B)}


def _term_of(model: Model, config: EmotionObjective) -> str:
    assert model != "recognizer"
    if model in ("melody", "harmony"):
        return "kl"
    return "bce" if model == "groove" and config.groove == "bce" else "error"


def _error(found_BD: Tensor, target_BD: Tensor, variance_D: Tensor, delta: float | None) -> Tensor:
    """Mean squared error [b] in spreads of the target; or Huber's, equal to it up to `delta` spreads."""
    spread = variance_D.mean().clamp_min(_TINY).sqrt()
    error_BD = (found_BD - target_BD) / spread
    if delta is None:
        return error_BD.square().mean(dim=1)
    zero = torch.zeros_like(error_BD)
    return 2 * functional.huber_loss(error_BD, zero, delta=delta, reduction="none").mean(dim=1)


def _surprise(logits_BC: Tensor, target: Tensor) -> Tensor:
    """Divergence [b] in nats of the softmax of the logits from classes [b], or from distributions [b, c]."""
    if not target.is_floating_point():
        return functional.cross_entropy(logits_BC, target, reduction="none")
    known_BC = target.float()
    return (torch.xlogy(known_BC, known_BC) - known_BC * logits_BC.log_softmax(dim=1)).sum(dim=1)


def _soft_yes_or_no(logits_BD: Tensor, target_BD: Tensor) -> Tensor:
    """Binary cross entropy [b] in nats a number, less what is in the targets: 0 where they are met."""
    crossed_BD = functional.binary_cross_entropy_with_logits(logits_BD, target_BD, reduction="none")
    no_BD = 1 - target_BD
    negative_entropy_BD = torch.xlogy(target_BD, target_BD) + torch.xlogy(no_BD, no_BD)
    return (crossed_BD + negative_entropy_BD).mean(dim=1)
