"""Figures of a student on held-out music, each beside what a constant or chance would reach."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from etude.evaluation.figures import Line, shown

NEIGHBOURS = 10
ROWS = 512


@dataclass(frozen=True)
class Metrics:
    """Higher is better throughout. Segments of one track weigh as one track."""

    cosine: float  # mean cosine between student and teacher, per segment
    constant_cosine: float  # the same for the best constant answer on these very segments
    skill: float  # 0 = that constant, 1 = the teacher itself
    track_cosine: float  # mean of a track's segments against the teacher's vector of the whole track
    track_constant_cosine: float
    track_skill: float
    overlap: float  # share of a segment's nearest neighbours, own track left out, that are the teacher's
    overlap_chance: float  # the same for neighbours drawn at random
    n_tracks: float
    n_segments: float

    @property
    def score(self) -> float:
        return self.skill

    def as_dict(self, prefix: str) -> dict[str, float]:
        return {f"{prefix}/{name}": float(value) for name, value in asdict(self).items()}

    def lines(self, things: str) -> list[Line]:
        chance = f"{shown(self.overlap / self.overlap_chance, 1)} times chance, {shown(self.overlap_chance)}"
        if math.isnan(self.overlap):
            chance = f"too few held-out {things} to have neighbours"
        lines = [
            Line("skill", shown(self.skill), "0 = best constant, 1 = the teacher"),
            Line("cosine", shown(self.cosine, 4), f"best constant {shown(self.constant_cosine, 4)}"),
            Line("neighbour overlap", shown(self.overlap), chance),
        ]
        if self.n_segments != self.n_tracks:
            constant = f"best constant {shown(self.track_constant_cosine, 4)}"
            lines.insert(2, Line(f"cosine of {things}", shown(self.track_cosine, 4), constant))
        return lines

    def held_out(self, things: str) -> str:
        segments = f" ({self.n_segments:.0f} segments)" if self.n_segments != self.n_tracks else ""
        return f"{self.n_tracks:.0f} held-out {things}{segments}"


def evaluate(
    student_ND: NDArray[np.floating],
    teacher_ND: NDArray[np.floating],
    track_N: NDArray[np.integer],
    teacher_tracks_TD: NDArray[np.floating],
) -> Metrics:
    """Compare segment vectors; `track_N` says which row of `teacher_tracks_TD` a segment belongs to."""
    student, teacher = unit(student_ND), unit(teacher_ND)
    weight = segment_weights(track_N)
    cosine = float(weight @ (student * teacher).sum(axis=1))
    constant = best_constant_cosine(teacher, weight)

    tracks = unit(track_means(student_ND, track_N, len(teacher_tracks_TD)))
    teacher_tracks = unit(teacher_tracks_TD)
    track_cosine = float((tracks * teacher_tracks).sum(axis=1).mean())
    track_constant = best_constant_cosine(teacher_tracks, np.full(len(tracks), 1 / len(tracks)))

    overlap, chance = neighbour_overlap(student, teacher, track_N, weight)
    return Metrics(
        cosine=cosine,
        constant_cosine=constant,
        skill=skill(cosine, constant),
        track_cosine=track_cosine,
        track_constant_cosine=track_constant,
        track_skill=skill(track_cosine, track_constant),
        overlap=overlap,
        overlap_chance=chance,
        n_tracks=float(len(teacher_tracks_TD)),
        n_segments=float(len(student)),
    )


def unit(vectors_ND: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows scaled to length 1; a row of zeros stays zero."""
    vectors = np.asarray(vectors_ND, dtype=np.float64)
    lengths: NDArray[np.float64] = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, np.maximum(lengths, 1e-12))


def segment_weights(track_N: NDArray[np.integer]) -> NDArray[np.float64]:
    """What each segment counts [n], so that every track counts the same and all together are 1."""
    weight = 1.0 / np.bincount(track_N)[track_N]
    return np.asarray(weight / weight.sum())


def track_means(
    vectors_ND: NDArray[np.floating], track_N: NDArray[np.integer], n_tracks: int
) -> NDArray[np.float64]:
    """The mean of each track's segments [n_tracks, dim]."""
    sums = np.zeros((n_tracks, vectors_ND.shape[1]))
    np.add.at(sums, track_N, vectors_ND)
    return np.asarray(sums / np.bincount(track_N, minlength=n_tracks)[:, None])


def best_constant_cosine(unit_ND: NDArray[np.float64], weight_N: NDArray[np.float64]) -> float:
    """Mean cosine of the one vector that fits all rows best: their mean's direction, so its length."""
    return float(np.linalg.norm(weight_N @ unit_ND))


def skill(cosine: float, constant_cosine: float) -> float:
    """How much of the way from the best constant to perfect was gone; nan if there is no way to go."""
    room = 1.0 - constant_cosine
    return (cosine - constant_cosine) / room if room > 1e-9 else float("nan")


def neighbour_overlap(
    student_ND: NDArray[np.float64],
    teacher_ND: NDArray[np.float64],
    track_N: NDArray[np.integer],
    weight_N: NDArray[np.float64],
    k: int = NEIGHBOURS,
) -> tuple[float, float]:
    """Share of the teacher's k nearest segments of other tracks that the student finds too, and chance.

    With k or fewer candidates for some segment there is nothing to choose, and both are nan.
    """
    return neighbour_overlaps(student_ND, teacher_ND, track_N, weight_N, (k,))[k]


def neighbour_overlaps(
    student_ND: NDArray[np.float64],
    teacher_ND: NDArray[np.float64],
    track_N: NDArray[np.integer],
    weight_N: NDArray[np.float64],
    ks: Sequence[int],
) -> dict[int, tuple[float, float]]:
    """`neighbour_overlap` for several numbers of neighbours, by number; all pairs are compared once."""
    candidates = len(track_N) - np.bincount(track_N)[track_N]
    fewest = int(candidates.min()) if len(track_N) else 0
    possible = [k for k in ks if fewest > k]
    found = dict.fromkeys(ks, (float("nan"), float("nan")))
    if not possible:
        return found
    most = max(possible)
    shared = {k: np.zeros(len(track_N)) for k in possible}
    for start in range(0, len(track_N), ROWS):  # all pairs of a large library would not fit into memory
        rows = slice(start, start + ROWS)
        other = track_N[rows, None] != track_N[None, :]
        nearest = [_nearest(np.where(other, v[rows] @ v.T, -np.inf), most) for v in (student_ND, teacher_ND)]
        for k in possible:
            members = [np.zeros_like(other) for _ in nearest]
            for member, order in zip(members, nearest, strict=True):
                np.put_along_axis(member, order[:, :k], True, axis=1)
            shared[k][rows] = (members[0] & members[1]).sum(axis=1) / k
    return found | {k: (float(weight_N @ shared[k]), float(weight_N @ (k / candidates))) for k in possible}


def _nearest(similarity_RN: NDArray[np.float64], k: int) -> NDArray[np.intp]:
    """Columns [r, k] of the k largest of every row, largest first; equal ones in the order of columns."""
    chosen = np.sort(np.argpartition(-similarity_RN, k, axis=1)[:, :k], axis=1)
    order = np.argsort(-np.take_along_axis(similarity_RN, chosen, axis=1), axis=1, kind="stable")
    return np.asarray(np.take_along_axis(chosen, order, axis=1))
