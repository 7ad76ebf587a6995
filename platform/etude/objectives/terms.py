"""Single loss terms between a student's vectors [b, dim] and its teacher's, in float32.

With `weight_B` [b] >= 0 a mean over items is a weighted one. Where all weights are 0 it is 0.
"""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, log_softmax, normalize

from etude.ranks import summed, world_size

_TINY = 1e-12


def cosine_distance(student_BD: Tensor, teacher_BD: Tensor, weight_B: Tensor | None = None) -> Tensor:
    """Mean of 1 - cosine over a batch."""
    cosine_B = cosine_similarity(student_BD, teacher_BD, dim=1)
    return weighted_mean(1 - cosine_B, weight_B)


def scaled_mse(
    student_BD: Tensor, teacher_BD: Tensor, variance_D: Tensor, weight_B: Tensor | None = None
) -> Tensor:
    """Squared error over the teacher's total variance, so that answering its mean costs 1."""
    error_B = (student_BD - teacher_BD).square().sum(dim=1)
    return weighted_mean(error_B, weight_B) / variance_D.sum().clamp_min(_TINY)


def normalized_mse(
    student_BD: Tensor,
    teacher_BD: Tensor,
    mean_D: Tensor,
    variance_D: Tensor,
    weight_B: Tensor | None = None,
) -> Tensor:
    """The same of the vectors at length 1, over the variance's share in the teacher's squared length.

    It is `scaled_mse` where both have length 1 anyway, and always in proportion to the cosine distance.
    """
    share = variance_D / (mean_D.square().sum() + variance_D.sum()).clamp_min(_TINY)
    return scaled_mse(normalize(student_BD, dim=1), normalize(teacher_BD, dim=1), share, weight_B)


def similarity_error(
    student_BD: Tensor, teacher_BD: Tensor, mean_D: Tensor, weight_B: Tensor | None = None
) -> Tensor:
    """Mean squared difference of all cosines between items (Tung and Mori, arXiv:1907.09682).

    Vectors are taken from the teacher's mean, without which all its cosines lie close together. A pair
    counts as much as the product of its items' weights. With several ranks pairs are those within each.
    """
    student = normalize(student_BD - mean_D, dim=1)
    teacher = normalize(teacher_BD - mean_D, dim=1)
    error_BB = (student @ student.T - teacher @ teacher.T).square()
    return weighted_mean(error_BB, None if weight_B is None else torch.outer(weight_B, weight_B))


def component_kl(
    student_BD: Tensor, teacher_BD: Tensor, temperature: float, weight_B: Tensor | None = None
) -> Tensor:
    """Kullback-Leibler divergence of the vectors' components as softmax distributions.

    Times the squared temperature, which keeps the gradients' size (Hinton et al., arXiv:1503.02531).
    """
    divergence_B = _kl(teacher_BD / temperature, student_BD / temperature)
    return weighted_mean(divergence_B, weight_B) * temperature**2


def anchor_kl(
    student_BD: Tensor,
    teacher_BD: Tensor,
    anchors_AD: Tensor,
    temperature: float,
    weight_B: Tensor | None = None,
) -> Tensor:
    """Kullback-Leibler divergence of what the vectors say of anchors [a, dim] of length 1.

    That is the softmax of the cosines to the anchors over the temperature.
    """
    student_BA, teacher_BA = (normalize(x, dim=1) @ anchors_AD.T for x in (student_BD, teacher_BD))
    return weighted_mean(_kl(teacher_BA / temperature, student_BA / temperature), weight_B)


def focal_weights(student_BD: Tensor, teacher_BD: Tensor, gamma: float, low: float, high: float) -> Tensor:
    """How much an item [b] still counts: (1 - cos)^gamma, falling to 0 from cosine `low` to `high`.

    No gradient flows through it (facts/audiomuse.md, c).
    """
    cosine_B = cosine_similarity(student_BD.detach(), teacher_BD, dim=1)
    fading_B = ((high - cosine_B) / (high - low)).clamp(0, 1)
    return (1 - cosine_B).clamp_min(0) ** gamma * fading_B


def weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """The mean of values, by weights of the same shape if there are any; 0 if all of them are 0.

    With several ranks it is this rank's share in the mean over all their values: the mean of these shares,
    as data parallelism takes it, is that mean, however unevenly items and weights are spread.
    """
    if weights is None and world_size() == 1:
        return values.mean()
    weights = torch.ones_like(values) if weights is None else weights
    total = summed(weights.detach().sum()) / world_size()
    return (values * weights).sum() / total.clamp_min(_TINY)


def _kl(teacher_BN: Tensor, student_BN: Tensor) -> Tensor:
    """The divergence [b] of the softmax of `student_BN` from that of `teacher_BN`."""
    teacher, student = log_softmax(teacher_BN, dim=1), log_softmax(student_BN, dim=1)
    return (teacher.exp() * (teacher - student)).sum(dim=1)
