"""Plots that a person looks at before trusting a figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from etude.data.batches import Dataset
from etude.evaluation.metrics import best_constant_cosine, unit
from etude.systems.student_clap import StudentClap

PAIRED = 1500  # segments whose cosines are drawn, spread over all


def student_plots(system: StudentClap, dataset: Dataset, batch_size: int, folder: Path) -> list[Path]:
    """How well each held-out track is met, and whether distances between segments are kept."""
    vectors, tracks = system.embed(dataset, batch_size)
    teacher = unit(np.concatenate([row.segment_targets for row in dataset]))
    student = unit(vectors)
    cosines = (student * teacher).sum(axis=1)
    weight = 1.0 / np.bincount(tracks)[tracks]
    constant_vector = weight @ teacher
    constant_cosines = teacher @ (constant_vector / np.linalg.norm(constant_vector))
    per_track = [float(cosines[tracks == i].mean()) for i in range(len(dataset))]

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), constrained_layout=True)
    bins = np.linspace(min(cosines.min(), constant_cosines.min()), 1.0, 40)
    left.hist(constant_cosines, bins, alpha=0.5, label="best constant", color="tab:gray")
    left.hist(cosines, bins, alpha=0.7, label="student", color="tab:blue")
    left.axvline(best_constant_cosine(teacher, weight / weight.sum()), color="tab:gray", linestyle="--")
    left.axvline(float(weight @ cosines / weight.sum()), color="tab:blue", linestyle="--")
    left.set(xlabel="cosine to the teacher", ylabel="segments", title="Held-out segments")
    left.legend()
    shown = np.unique(np.linspace(0, len(tracks) - 1, PAIRED).astype(int))
    other = tracks[shown, None] < tracks[None, shown]
    pairs = (teacher[shown] @ teacher[shown].T)[other]
    if len(pairs):  # with a single held-out track there are none
        right.hexbin(pairs, (student[shown] @ student[shown].T)[other], gridsize=50, mincnt=1, cmap="viridis")
        ends = [float(pairs.min()), 1.0]
        right.plot(ends, ends, color="tab:red", linewidth=1)
    right.set(xlabel="teacher", ylabel="student", title="Cosines between segments of different tracks")
    plot = folder / "test_set.png"
    figure.savefig(plot, dpi=110)
    plt.close(figure)

    worst = sorted(zip(per_track, dataset, strict=True), key=lambda pair: pair[0])
    lines = [f"{cosine:.4f}  {row.track.title} ({row.track.artist or 'unknown'})" for cosine, row in worst]
    listing = folder / "test_tracks.txt"
    listing.write_text(
        "mean cosine of each held-out track, worst first\n" + "\n".join(lines) + "\n", errors="replace"
    )
    return [plot, listing]


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
