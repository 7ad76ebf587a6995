"""Text queries: does the student bring the tracks that the teacher brings, in the same order?

The measures are those of the public evaluation of AudioMuse-AI-DCLAP (facts/audiomuse.md, c, "Eval"), each
with what a ranking at random would reach. The teacher's ranking is taken for the truth: what it is worth to
a listener is another question.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from etude.errors import UserError

QUERIES = Path(__file__).with_name("queries.txt")  # the 14 of seed 4
RELEVANT, DEPTH = 5, 10
TIE = 1e-6  # cosines that differ by less are one


@dataclass(frozen=True)
class Agreement:
    """How far a student's ranking follows the teacher's; nan where there are too few tracks to choose from.

    Where tracks tie for the teacher's last place that counts, all of them count as the teacher's.
    """

    recall_1: float  # 1 if the student's first is the teacher's
    recall_5: float  # share of the student's first five that are the teacher's
    map_10: float  # precision at every hit among the student's ten; the teacher's five are the hits
    overlap_10: float  # share of the student's first ten that are the teacher's
    rank_shift: float  # places by which the teacher's first ten moved, on average; 0 is best


@dataclass(frozen=True)
class Answers:
    """What teacher and student say to every query."""

    queries: tuple[str, ...]
    teacher_QT: NDArray[np.float64]  # cosine of every query to every track
    student_QT: NDArray[np.float64]
    each: tuple[Agreement, ...]
    mean: Agreement
    chance: Agreement


def read_queries(path: Path) -> tuple[str, ...]:
    """One query a line; empty lines do not count, and none counts twice. Raises UserError."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8: give a file with one query a line") from None
    except OSError as error:
        raise UserError(f"cannot read the queries in {path}: {error.strerror or error}") from None
    queries = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not queries:
        raise UserError(f"{path} holds no query: put one into every line")
    if any(not query.isprintable() for query in queries):
        raise UserError(f"{path} holds control characters: give a text file with one query a line")
    return queries


def answers(
    queries: Sequence[str],
    teacher: tuple[NDArray[np.float64], NDArray[np.float64]],
    student: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> Answers:
    """Rank all tracks for all queries; each side gives unit vectors of queries [q, d] and tracks [t, d]."""
    by_teacher, by_student = (np.asarray(texts @ tracks.T) for texts, tracks in (teacher, student))
    each = [agreement(t, s) for t, s in zip(by_teacher, by_student, strict=True)]
    return Answers(
        tuple(queries), by_teacher, by_student, tuple(each),
        mean=_mean(each), chance=_mean([chance(row) for row in by_teacher]),
    )  # fmt: skip


def agreement(teacher_T: NDArray[np.float64], student_T: NDArray[np.float64]) -> Agreement:
    """Compare two scores of the same tracks; the student's own ties go by the order of the tracks."""
    n_tracks = len(teacher_T)
    student_order, teacher_order = ranking(student_T), ranking(teacher_T)

    def share(k: int) -> float:
        if n_tracks <= k:
            return float("nan")
        return float(best(teacher_T, k)[student_order[:k]].mean())

    place_T = np.empty(n_tracks)
    place_T[student_order] = np.arange(n_tracks)
    k = min(DEPTH, n_tracks)
    shift = np.abs(place_T[teacher_order[:k]] - np.arange(k)).mean() if n_tracks > 1 else float("nan")
    return Agreement(
        share(1), share(RELEVANT), _precision(teacher_T, student_order), share(DEPTH), float(shift)
    )


def chance(teacher_T: NDArray[np.float64]) -> Agreement:
    """What a ranking at random reaches on average, exactly."""
    n_tracks = len(teacher_T)

    def share(k: int) -> float:
        return float(best(teacher_T, k).mean()) if n_tracks > k else float("nan")

    precision = float("nan")
    if n_tracks > RELEVANT:
        n_hits, places = int(best(teacher_T, RELEVANT).sum()), np.arange(min(DEPTH, n_tracks))
        # A hit stands at a place with n_hits / n; the others are spread evenly over the places before it.
        before = places * (n_hits - 1) / (n_tracks - 1)
        precision = float((n_hits / n_tracks * (1 + before) / (places + 1)).sum() / min(n_hits, DEPTH))
    place = np.arange(min(DEPTH, n_tracks))
    beyond = n_tracks - 1 - place
    shift = (place * (place + 1) + beyond * (beyond + 1)).mean() / (2 * n_tracks)
    return Agreement(
        share(1), share(RELEVANT), precision, share(DEPTH), float(shift) if n_tracks > 1 else float("nan")
    )


def ranking(score_T: NDArray[np.float64]) -> NDArray[np.intp]:
    """Tracks, best first; equal ones in the order of the tracks."""
    return np.argsort(-score_T, kind="stable")


def best(score_T: NDArray[np.float64], k: int) -> NDArray[np.bool_]:
    """Which tracks [t] are among the best k, those that tie with the last of them too."""
    return np.asarray(score_T >= np.sort(score_T)[-k] - TIE)


def _precision(teacher_T: NDArray[np.float64], student_order: NDArray[np.intp]) -> float:
    if len(teacher_T) <= RELEVANT:
        return float("nan")
    relevant = best(teacher_T, RELEVANT)
    hit = relevant[student_order[:DEPTH]]
    at_place = np.cumsum(hit) / (np.arange(len(hit)) + 1)
    return float((at_place * hit).sum() / min(relevant.sum(), DEPTH))


def _mean(several: Sequence[Agreement]) -> Agreement:
    rows = [asdict(one) for one in several]
    return Agreement(**{f.name: float(np.mean([row[f.name] for row in rows])) for f in fields(Agreement)})
