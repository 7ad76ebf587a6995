"""Terms that pull a student's vectors towards its teacher's. Every term is 0 for a perfect student."""

from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from etude.config import Section


class DistillationWeights(Section):
    """How much each term counts; 0 leaves it out."""

    cosine: float = Field(1.0, ge=0, description="1 - cosine to the teacher")
    mse: float = Field(0.0, ge=0, description="squared error over the teacher's variance: 1 for its mean")
    similarity: float = Field(0.0, ge=0, description="error of the cosines between the batch's items")

    @model_validator(mode="after")
    def _something_to_learn(self) -> "DistillationWeights":
        if self.cosine + self.mse + self.similarity == 0:
            raise ValueError("at least one weight must be above 0")
        return self


class ObjectiveConfig(Section):
    """What a student is asked for."""

    weights: DistillationWeights = DistillationWeights()


def cosine_distance(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Mean of 1 - cosine over a batch."""
    return 1 - cosine_similarity(student_BD, teacher_BD, dim=1).mean()


def scaled_mse(student_BD: Tensor, teacher_BD: Tensor, variance_D: Tensor) -> Tensor:
    """Squared error over the teacher's total variance, so that answering its mean costs 1."""
    return (student_BD - teacher_BD).square().sum(dim=1).mean() / variance_D.sum().clamp_min(1e-12)


def similarity_error(student_BD: Tensor, teacher_BD: Tensor, mean_D: Tensor) -> Tensor:
    """Mean squared difference of all cosines between items (Tung and Mori, arXiv:1907.09682).

    Vectors are taken from the teacher's mean, without which all its cosines lie close together.
    """
    student = normalize(student_BD - mean_D, dim=1)
    teacher = normalize(teacher_BD - mean_D, dim=1)
    return (student @ student.T - teacher @ teacher.T).square().mean()


def distillation_terms(
    student_BD: Tensor,
    teacher_BD: Tensor,
    mean_D: Tensor,
    variance_D: Tensor,
    weights: DistillationWeights,
) -> dict[str, Tensor]:
    """The terms that have a weight, by name."""
    terms: dict[str, Tensor] = {}
    if weights.cosine:
        terms["cosine"] = cosine_distance(student_BD, teacher_BD)
    if weights.mse:
        terms["mse"] = scaled_mse(student_BD, teacher_BD, variance_D)
    if weights.similarity:
        terms["similarity"] = similarity_error(student_BD, teacher_BD, mean_D)
    return terms
