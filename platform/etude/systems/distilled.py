"""What the systems share in which one student learns one teacher's vectors."""

import torch
from torch import Tensor, nn

from etude.errors import UserError
from etude.objectives.distillation import LogitScale, ObjectiveConfig, distillation_terms
from etude.systems.base import TrainingData


class Distilled(nn.Module):
    """A student and its objective as one module, so that data-parallel training wraps all of it.

    Its `student` has `start_at` and `freeze_backbone`.
    """

    mean: Tensor
    variance: Tensor
    anchors: Tensor | None

    def __init__(
        self, student: nn.Module, objective: ObjectiveConfig, dim: int, anchors_AD: Tensor | None
    ) -> None:
        """`anchors_AD` are directions with a meaning in the teacher's space.

        Raises UserError if the semantic term has a weight and there are none.
        """
        super().__init__()
        if objective.weights.semantic and anchors_AD is None:
            raise UserError(
                "objective.weights.semantic needs directions with a meaning, and this teacher has none: set "
                "it to 0, or give a CLAP teacher its text model (teacher.text_model and teacher.tokenizer)"
            )
        self.student = student
        self.scale = LogitScale(objective)
        self._objective = objective
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))
        self.register_buffer("anchors", anchors_AD, persistent=False)

    @property
    def weights(self) -> dict[str, float]:
        return self._objective.weights.model_dump()

    def start_at(self, data: TrainingData) -> None:
        mean, std = (torch.from_numpy(array).to(self.mean) for array in data.target_statistics())
        self.mean.copy_(mean)
        self.variance.copy_(std.square())
        self.student.start_at(mean, std)  # type: ignore[operator]

    def train_head_only(self) -> None:
        self.student.freeze_backbone()  # type: ignore[operator]

    def compile_student(self) -> None:
        self.student.compile()

    def rate_of(self, parameter: str) -> float:
        return 1.0

    def reset_logit_scale(self) -> None:
        if self._objective.logit_scale != "learned":
            raise UserError("there is no learned logit scale to reset: set objective.logit_scale to learned")
        self.scale.reset()

    def terms(
        self, student_PD: Tensor, teacher_PD: Tensor, weight_P: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The objective's terms of pairs of vectors that count as much as `weight_P` [p] says."""
        return distillation_terms(
            student_PD,
            teacher_PD,
            mean_D=self.mean,
            variance_D=self.variance,
            config=self._objective,
            weight_B=weight_P,
            anchors_AD=self.anchors,
            scale=self.scale.scale(),
        )
