"""How errors, cosines and lengths are spread, where one mean would hide the worst, and how sure a skill is.

As in `etude.evaluation.metrics`, every track counts the same, however many segments it has.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etude.evaluation.metrics import segment_weights, track_means, unit

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
DRAWS = 1000  # of the bootstrap
_DRAWS_AT_ONCE = 100  # draws x tracks stay small for a large library
_NO_ROOM = 1e-9  # below which `metrics.skill` says nothing either


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation and percentiles of one figure over segments or tracks."""

    mean: float
    std: float
    percentiles: Mapping[int, float]


@dataclass(frozen=True)
class Distribution:
    """What `metrics.Metrics` does not say of the same vectors."""

    mse: float  # mean squared difference of one number, vectors as they are
    mse_constant: float  # the same for the constant that fits best
    mse_unit: float  # vectors at length 1: 2 (1 - cosine) / dim
    mse_unit_constant: float
    cosine: Spread  # of segments
    track_cosine: Spread
    student_length: Spread  # of the segments' vectors
    teacher_length: Spread
    skill_interval: tuple[float, float]  # 95 %, other tracks being drawn; nan with a single track
    track_skill_interval: tuple[float, float]


def distribution(
    student_ND: NDArray[np.floating],
    teacher_ND: NDArray[np.floating],
    track_N: NDArray[np.integer],
    teacher_tracks_TD: NDArray[np.floating],
) -> Distribution:
    """Compare segment vectors; `track_N` says which row of `teacher_tracks_TD` a segment belongs to."""
    weight, n_tracks = segment_weights(track_N), len(teacher_tracks_TD)
    student, teacher = unit(student_ND), unit(teacher_ND)
    cosine_N = (student * teacher).sum(axis=1)
    teacher_tracks = unit(teacher_tracks_TD)
    track_cosine_T = (unit(track_means(student_ND, track_N, n_tracks)) * teacher_tracks).sum(axis=1)
    of_tracks = track_means(teacher, track_N, n_tracks)
    even = np.full(n_tracks, 1 / n_tracks)
    return Distribution(
        mse=mean_squared(student_ND, teacher_ND, weight),
        mse_constant=mean_squared(np.asarray(weight @ teacher_ND)[None], teacher_ND, weight),
        mse_unit=mean_squared(student, teacher, weight),
        mse_unit_constant=mean_squared(unit((weight @ teacher)[None]), teacher, weight),
        cosine=spread(cosine_N, weight),
        track_cosine=spread(track_cosine_T, even),
        student_length=spread(np.linalg.norm(student_ND, axis=1), weight),
        teacher_length=spread(np.linalg.norm(teacher_ND, axis=1), weight),
        skill_interval=skill_interval(
            track_means(cosine_N[:, None], track_N, n_tracks)[:, 0], constant_cosines(of_tracks)
        ),
        track_skill_interval=skill_interval(track_cosine_T, constant_cosines(teacher_tracks)),
    )


def mean_squared(
    a_ND: NDArray[np.floating], b_ND: NDArray[np.floating], weight_N: NDArray[np.float64]
) -> float:
    """Weighted mean over rows of the mean squared difference of their numbers."""
    return float(weight_N @ ((a_ND.astype(np.float64) - b_ND) ** 2).mean(axis=1))


def constant_cosines(teacher_TD: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each track's cosine [t] to the one answer that fits all best; rows are means of unit vectors."""
    return np.asarray(teacher_TD @ unit(teacher_TD.mean(axis=0, keepdims=True))[0])


def spread(values_N: NDArray[np.floating], weight_N: NDArray[np.float64]) -> Spread:
    """Weighted; a percentile is the smallest value with at least that share of the weight at or below it."""
    mean = float(weight_N @ values_N)
    points = np.quantile(values_N, np.array(PERCENTILES) / 100, weights=weight_N, method="inverted_cdf")
    return Spread(
        mean=mean,
        std=float(np.sqrt(weight_N @ (values_N - mean) ** 2)),
        percentiles={p: float(value) for p, value in zip(PERCENTILES, points, strict=True)},
    )


def skill_interval(
    cosine_T: NDArray[np.floating], constant_T: NDArray[np.floating], draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """95 % of the skills that as many tracks would show, drawn with replacement from these.

    Both are each track's mean cosine to the teacher: the student's, and the best constant's for all tracks.
    That one is not fitted to every draw anew: to draws of few tracks it would fit too well. Both ends are
    nan with one track, or where the constant is perfect.
    """
    n_tracks = len(cosine_T)
    if n_tracks < 2:
        return float("nan"), float("nan")
    generator = np.random.default_rng(seed)
    skills = []
    for first in range(0, draws, _DRAWS_AT_ONCE):
        n = min(_DRAWS_AT_ONCE, draws - first)
        share_BT = generator.multinomial(n_tracks, np.full(n_tracks, 1 / n_tracks), size=n) / n_tracks
        constant, cosine = share_BT @ constant_T, share_BT @ cosine_T
        kept = 1.0 - constant > _NO_ROOM
        skills.append((cosine - constant)[kept] / (1.0 - constant[kept]))
    drawn = np.concatenate(skills)
    if not len(drawn):
        return float("nan"), float("nan")
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)
