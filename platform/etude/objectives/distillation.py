"""What a student is asked for, and the terms that pull its vectors towards its teacher's.

Every term is least for a perfect student: 0, or with a learned logit scale what `LogitScale` says.
"""

import math
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from etude.config import Section
from etude.objectives import terms as term


class DistillationWeights(Section):
    """How much each term counts; 0 leaves it out."""

    cosine: float = Field(1.0, ge=0, description="1 - cosine to the teacher")
    mse: float = Field(0.0, ge=0, description="squared error over the teacher's variance: 1 for its mean")
    similarity: float = Field(0.0, ge=0, description="error of the cosines between the batch's items")
    kl: float = Field(0.0, ge=0, description="divergence of the softmax over the vector's components")
    semantic: float = Field(0.0, ge=0, description="divergence of the softmax over the teacher's anchors")

    @model_validator(mode="after")
    def _something_to_learn(self) -> "DistillationWeights":
        if not any(self.model_dump().values()):
            raise ValueError("at least one weight must be above 0")
        return self


class ObjectiveConfig(Section):
    """What a student is asked for. The defaults of focal weights and scale: facts/audiomuse.md, c."""

    weights: DistillationWeights = DistillationWeights()
    mse_on: Literal["raw", "normalized"] = Field("raw", description="vectors as they are, or at length 1")
    temperature: float = Field(0.7, gt=0, description="of kl; higher compares more of the vector")
    semantic_temperature: float = Field(
        0.07, gt=0, description="of semantic; CLAP starts with 0.07, higher compares more anchors"
    )
    focal_gamma: float = Field(0.0, ge=0, description="above 0: items near the teacher count less; 0: off")
    focal_low: float = Field(0.65, ge=-1, le=1, description="cosine from which an item's weight fades")
    focal_high: float = Field(0.80, ge=-1, le=1, description="cosine from which an item has no weight")
    logit_scale: Literal["none", "fixed", "learned"] = Field(
        "none", description="factor of the cosine term; learned: as a likelihood, so that it stays finite"
    )
    logit_scale_init: float = Field(2.6592, ge=0, description="natural logarithm of the factor at the start")
    logit_scale_max: float = Field(math.log(50), gt=0, description="its largest natural logarithm")

    @model_validator(mode="after")
    def _consistent(self) -> "ObjectiveConfig":
        if self.focal_low >= self.focal_high:
            raise ValueError(f"focal_low ({self.focal_low}) must be below focal_high ({self.focal_high})")
        if self.logit_scale == "none":
            return self
        if not self.weights.cosine:
            raise ValueError("logit_scale scales the cosine term, whose weight is 0: set it to none")
        start, most = self.logit_scale_init, self.logit_scale_max
        if start > most:
            raise ValueError(f"logit_scale_init ({start}) is above logit_scale_max ({most:.6g})")
        if self.logit_scale == "learned" and start in (0, most):
            raise ValueError(
                f"logit_scale_init ({start}) must lie between 0 and logit_scale_max ({most:.6g}), "
                "at neither of which a learned scale could move"
            )
        return self


class LogitScale(nn.Module):
    """The factor kappa of the cosine term: 1, fixed, or learned as `logit_scale`.

    Upstream learns a plain factor of the cosine, whose gradient pushes it to its limit whatever the student
    does (facts/audiomuse.md, c). Here a learned one is that of a likelihood: the term is
    kappa (1 - cos) - log(kappa), least at kappa = 1 / (1 - cos). A sigmoid keeps log(kappa) between 0 and
    `logit_scale_max`, so no clamp ever stops its gradient. `logit_scale` is what goes into the sigmoid, and
    a scalar, so that weight decay leaves it alone.
    """

    constant: Tensor | None
    logit_scale: nn.Parameter | None

    def __init__(self, config: ObjectiveConfig) -> None:
        super().__init__()
        self._init, self._max = config.logit_scale_init, config.logit_scale_max
        fixed = torch.tensor(math.exp(self._init)) if config.logit_scale == "fixed" else None
        self.register_buffer("constant", fixed, persistent=False)
        learned = nn.Parameter(torch.empty(())) if config.logit_scale == "learned" else None
        self.register_parameter("logit_scale", learned)
        self.reset()

    def reset(self) -> None:
        """Back to `logit_scale_init`."""
        if self.logit_scale is not None:
            share = self._init / self._max
            self.logit_scale.data.fill_(math.log(share / (1 - share)))

    def scale(self) -> Tensor | None:
        """Kappa, a scalar; None if the cosine term is not scaled."""
        if self.logit_scale is None:
            return self.constant
        return (self._max * self.logit_scale.float().sigmoid()).exp()


def scaled(distance: Tensor, config: ObjectiveConfig, scale: Tensor | None) -> Tensor:
    """The cosine term that is optimised, of 1 - cosine and what `LogitScale.scale` gave."""
    if scale is None:
        return distance
    return scale * distance - scale.log() if config.logit_scale == "learned" else scale * distance


def distillation_terms(
    student_BD: Tensor,
    teacher_BD: Tensor,
    *,
    mean_D: Tensor,
    variance_D: Tensor,
    config: ObjectiveConfig,
    weight_B: Tensor | None = None,
    anchors_AD: Tensor | None = None,
    scale: Tensor | None = None,
) -> dict[str, Tensor]:
    """The terms that have a weight, by name, in float32 whatever the inputs and the autocast.

    `mean_D` and `variance_D` are the teacher's over the training set. `weight_B` [b] >= 0 says how much an
    item counts; only its proportions matter. Focal weights multiply it in the terms of single items, which
    are all but `similarity`. `anchors_AD` [a, dim] have length 1 and are needed for `semantic`.

    `scale` is what `LogitScale(config).scale()` gives, None for `logit_scale` none. With one, "cosine" is
    what is optimised, not 1 - cosine.
    """
    assert (scale is None) == (config.logit_scale == "none"), "the scale must be LogitScale(config).scale()"
    with torch.autocast(student_BD.device.type, enabled=False):
        student, teacher = student_BD.float(), teacher_BD.float()
        mean, variance = mean_D.float(), variance_D.float()
        weight = pair_weight = None if weight_B is None else weight_B.float()
        if config.focal_gamma:
            focal = term.focal_weights(
                student, teacher, config.focal_gamma, config.focal_low, config.focal_high
            )
            weight = focal if weight is None else focal * weight

        weights, found = config.weights, dict[str, Tensor]()
        if weights.cosine:
            distance = term.cosine_distance(student, teacher, weight)
            found["cosine"] = scaled(distance, config, scale)
        if weights.mse and config.mse_on == "raw":
            found["mse"] = term.scaled_mse(student, teacher, variance, weight)
        elif weights.mse:
            found["mse"] = term.normalized_mse(student, teacher, mean, variance, weight)
        if weights.similarity:
            found["similarity"] = term.similarity_error(student, teacher, mean, pair_weight)
        if weights.kl:
            found["kl"] = term.component_kl(student, teacher, config.temperature, weight)
        if weights.semantic:
            assert anchors_AD is not None, "the semantic term needs the teacher's anchors"
            anchors = anchors_AD.float()
            found["semantic"] = term.anchor_kl(student, teacher, anchors, config.semantic_temperature, weight)
    return found
