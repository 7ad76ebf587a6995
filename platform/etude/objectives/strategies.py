"""What of a batch is compared with the teacher: segments, tracks, or both."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

Strategy = Literal["segments", "average", "both"]


def pairs(
    student_BD: Tensor, teacher_BD: Tensor, track_B: Tensor, strategy: Strategy, *, normalized: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Student's and teacher's vectors [p, dim] that are compared, and how much each pair counts [p].

    A track's vector is the mean of its segments' in this batch, on both sides: with all of a track's
    segments there, or one, that is the vector that the teacher's users store. With `normalized` it has length
    1 again. With `both` a track counts as much as any other, however many segments it has.
    """
    if strategy == "segments":
        return student_BD, teacher_BD, None
    _, group_B, size_T = torch.unique(track_B, return_inverse=True, return_counts=True)
    tracks = [_means(vectors, group_B, size_T, normalized) for vectors in (student_BD, teacher_BD)]
    if strategy == "average":
        return tracks[0], tracks[1], None
    weight_T = 1.0 / (size_T + 1)
    return (
        torch.cat([student_BD, tracks[0].to(student_BD.dtype)]),
        torch.cat([teacher_BD, tracks[1]]),
        torch.cat([weight_T[group_B], weight_T]),
    )


def _means(vectors_BD: Tensor, group_B: Tensor, size_T: Tensor, normalized: bool) -> Tensor:
    """Mean vector of every group [t, dim], in float32."""
    sums = vectors_BD.new_zeros((len(size_T), vectors_BD.shape[1]), dtype=torch.float32)
    means_TD = sums.index_add(0, group_B, vectors_BD.float()) / size_T[:, None]
    return normalize(means_TD, dim=1) if normalized else means_TD
