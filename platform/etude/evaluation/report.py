"""Plots that a person looks at before trusting a figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from etude.evaluation.metrics import best_constant_cosine, unit

PAIRED = 1500  # segments whose cosines are drawn, spread over all


@dataclass(frozen=True)
class Compared:
    """Held-out vectors of a student beside its teacher's, ready to be drawn."""

    student_ND: NDArray[np.floating]
    teacher_ND: NDArray[np.floating]
    group_N: NDArray[np.integer]  # the thing that each row belongs to
    titles: Sequence[str]  # of the things
    what: str  # a row: "segments", "queries"


def held_out_plots(compared: Compared, folder: Path, name: str = "test_set") -> list[Path]:
    """How well each thing is met, and whether distances between them are kept: a plot and a listing."""
    teacher, student = unit(compared.teacher_ND), unit(compared.student_ND)
    groups, what = compared.group_N, compared.what
    cosines = (student * teacher).sum(axis=1)
    weight = 1.0 / np.bincount(groups)[groups]
    constant_vector = weight @ teacher
    constant_cosines = teacher @ (constant_vector / np.linalg.norm(constant_vector))

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), constrained_layout=True)
    bins = np.linspace(min(cosines.min(), constant_cosines.min()), 1.0, 40)
    left.hist(constant_cosines, bins, alpha=0.5, label="best constant", color="tab:gray")
    left.hist(cosines, bins, alpha=0.7, label="student", color="tab:blue")
    left.axvline(best_constant_cosine(teacher, weight / weight.sum()), color="tab:gray", linestyle="--")
    left.axvline(float(weight @ cosines / weight.sum()), color="tab:blue", linestyle="--")
    left.set(xlabel="cosine to the teacher", ylabel=what, title=f"{what.capitalize()}: student and teacher")
    left.legend()
    shown = np.unique(np.linspace(0, len(groups) - 1, PAIRED).astype(int))
    other = groups[shown, None] < groups[None, shown]
    pairs = (teacher[shown] @ teacher[shown].T)[other]
    if len(pairs):  # with a single held-out thing there are none
        right.hexbin(pairs, (student[shown] @ student[shown].T)[other], gridsize=50, mincnt=1, cmap="viridis")
        ends = [float(pairs.min()), 1.0]
        right.plot(ends, ends, color="tab:red", linewidth=1)
    right.set(xlabel="teacher", ylabel="student", title=f"Cosines between {what} of different origin")
    plot = folder / f"{name}.png"
    figure.savefig(plot, dpi=110)
    plt.close(figure)

    means = [float(cosines[groups == i].mean()) for i in range(len(compared.titles))]
    worst = sorted(zip(means, compared.titles, strict=True), key=lambda pair: pair[0])
    lines = ["mean cosine to the teacher, worst first", *(f"{mean:.4f}  {title}" for mean, title in worst)]
    listing = folder / f"{name}.txt"
    listing.write_text("\n".join(lines) + "\n", errors="replace")
    return [plot, listing]


def percentile_plot(cosines: Mapping[str, NDArray[np.floating]], constant_cosine: float, path: Path) -> Path:
    """Every cosine to the teacher over the share of rows that are worse; `cosines` by name of the rows."""
    figure, axes = plt.subplots(figsize=(7, 5), constrained_layout=True)
    for name, values in cosines.items():
        axes.plot((np.arange(len(values)) + 0.5) / len(values) * 100, np.sort(values), label=name, marker=".")
    axes.axhline(constant_cosine, color="tab:gray", linestyle="--", label="best constant, mean")
    axes.set(xlabel="percentile", ylabel="cosine to the teacher", title="Cosine by percentile", xlim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def query_plot(
    queries: Sequence[str],
    places: tuple[NDArray[np.integer], NDArray[np.integer]],
    overlap_Q: Sequence[float],
    chance: float,
    path: Path,
) -> Path:
    """How far each query's first ten are shared, and tracks' places (teacher, student) [q, t], from 1."""
    height = 1.5 + 0.3 * len(queries)
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, max(5.0, height)), constrained_layout=True)
    names = [query if len(query) <= 40 else f"{query[:37]}..." for query in queries]
    left.barh(np.arange(len(names)), np.nan_to_num(overlap_Q), color="tab:blue")
    left.set_yticks(np.arange(len(names)), names, fontsize=8, parse_math=False)
    left.invert_yaxis()
    if np.isfinite(chance):
        left.axvline(chance, color="tab:gray", linestyle="--", label="chance")
        left.legend()
    if np.isnan(overlap_Q).all():  # no bars would read as zeros
        left.text(0.5, 0.5, "too few tracks to choose 10 from", transform=left.transAxes, ha="center")
    left.set(xlim=(0, 1), xlabel="share of the teacher's first 10 tracks", title="Queries")
    of_teacher, of_student = (np.asarray(side).ravel() for side in places)
    right.hexbin(of_teacher, of_student, gridsize=40, mincnt=1, cmap="viridis")
    right.plot([1, of_teacher.max()], [1, of_teacher.max()], color="tab:red", linewidth=1)
    right.set(xlabel="place by the teacher", ylabel="place by the student", title="Tracks by query")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def sweep_plot(
    curves: Mapping[int, Sequence[tuple[int, float]]],
    costs: Mapping[int, tuple[float, float]],
    winner: int,
    path: Path,
) -> Path:
    """Skill by epoch of every trial (`curves`), and best skill over MACs (`costs`: MACs, best skill)."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), constrained_layout=True)
    for number, points in curves.items():
        epochs, scores = zip(*points, strict=True) if points else ((), ())
        style = {"color": "tab:red", "linewidth": 2.2, "zorder": 3} if number == winner else {"alpha": 0.6}
        left.plot(epochs, scores, marker=".", label=f"{number:03d}", **style)
    _frame_skill(left)
    left.set(xlabel="epoch", ylabel="validation skill", title="Trials")
    left.legend(ncols=2, fontsize=8, title="trial")
    for number, (macs, score) in costs.items():
        right.scatter(macs / 1e6, score, color="tab:red" if number == winner else "tab:blue", zorder=3)
        right.annotate(
            f"{number:03d}", (macs / 1e6, score), xytext=(4, 4), textcoords="offset points", fontsize=8
        )
    _frame_skill(right)
    right.set(
        xscale="log", xlabel="million multiply-adds for 10 s", ylabel="best validation skill", title="Cost"
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _frame_skill(axes: Axes) -> None:
    """Skill has a zero that means something; very bad starts would squeeze the rest."""
    axes.axhline(0.0, color="tab:gray", linewidth=0.8)
    axes.set_ylim(bottom=max(axes.get_ylim()[0], -0.5))
    axes.grid(alpha=0.3)
