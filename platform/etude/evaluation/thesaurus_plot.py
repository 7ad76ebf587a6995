"""The 216 feelings of the thesaurus on a map, and what a network made of a piece beside what it should be."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from etude.emotion.thesaurus import CATEGORIES, Thesaurus

# Okabe & Ito 2008: told apart by the colour-blind; the markers differ as well.
_LOOKS = {
    "joy": ("#E69F00", "o"),
    "sad": ("#0072B2", "s"),
    "anger": ("#D55E00", "^"),
    "fear": ("#CC79A7", "D"),
    "surprise": ("#009E73", "v"),
    "disgust": ("#000000", "P"),
}
# Where nothing else lies beside a category, seen along valence and arousal.
_FREE_SIDE = {
    "joy": (0, 1), "sad": (0, -1), "anger": (0, 1), "fear": (-1, 0), "surprise": (0, 1), "disgust": (1, 0),
}  # fmt: skip
_PANELS = ((0, 1), (0, 2), (2, 1))  # which of the four numbers lie along x and y
_AXES = ("valence", "arousal", "dominance", "intensity")


def thesaurus_plot(
    thesaurus: Thesaurus,
    path: Path,
    predicted_N4: NDArray[np.floating] | None = None,
    target_N4: NDArray[np.floating] | None = None,
) -> Path:
    """Save the thesaurus as PNG, seen from three sides; a node grows with its intensity.

    Predictions [n, 4] and targets [n, 4] are drawn over it; with both, a line joins each pair.
    """
    figure = plt.figure(figsize=(13, 8), constrained_layout=True)
    places = figure.add_gridspec(2, 3)
    panels = [figure.add_subplot(places[where]) for where in (np.s_[:, :2], np.s_[0, 2], np.s_[1, 2])]
    for axes, (x, y) in zip(panels, _PANELS, strict=True):
        _nodes(axes, thesaurus, x, y, scale=1.0 if axes is panels[0] else 0.5)
        _results(axes, predicted_N4, target_N4, x, y)
        axes.set(xlabel=_AXES[x], ylabel=_AXES[y], xlim=_limits(x), ylim=_limits(y))
        axes.locator_params(nbins=5)
        axes.grid(color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
    _names(panels[0], thesaurus)
    figure.legend(
        handles=_legend(predicted_N4, target_N4), loc="outside lower center", ncols=9, frameon=False
    )
    figure.suptitle("216 feelings: a marker grows with intensity")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _nodes(axes: Any, thesaurus: Thesaurus, x: int, y: int, scale: float) -> None:
    for name, own in _by_category(thesaurus).items():
        colour, marker = _LOOKS[name]
        size = scale * (8 + 40 * own[:, 3])
        axes.scatter(own[:, x], own[:, y], s=size, c=colour, marker=marker, alpha=0.55, linewidths=0)


def _names(axes: Any, thesaurus: Thesaurus) -> None:
    """Every category's name on the free side of its group, in valence and arousal."""
    for name, own in _by_category(thesaurus).items():
        side = np.array(_FREE_SIDE[name])
        low, high = own[:, :2].min(axis=0), own[:, :2].max(axis=0)
        axes.annotate(
            name,
            (low + high) / 2 + side * (high - low) / 2,
            xytext=9 * side,
            textcoords="offset points",
            ha=("center", "left", "right")[side[0]],
            va=("center", "bottom", "top")[side[1]],
            fontsize=12,
            zorder=2,  # below predictions and targets
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )


def _by_category(thesaurus: Thesaurus) -> dict[str, NDArray[np.float64]]:
    """Positions [36, 4] of each category's nodes."""
    return dict(zip(CATEGORIES, thesaurus.vad_N4.reshape(6, 36, 4), strict=True))


def _results(
    axes: Any, predicted: NDArray[np.floating] | None, target: NDArray[np.floating] | None, x: int, y: int
) -> None:
    if predicted is not None and target is not None:
        both = np.stack([target, predicted])
        axes.plot(both[:, :, x], both[:, :, y], color="0.5", linewidth=0.6, zorder=2.5)
    if target is not None:
        axes.scatter(target[:, x], target[:, y], s=30, marker="x", c="0.25", linewidths=1.1, zorder=3)
    if predicted is not None:
        axes.scatter(
            predicted[:, x],
            predicted[:, y],
            s=26,
            facecolor="white",
            edgecolor="0.1",
            linewidths=1.1,
            zorder=3,
        )


def _limits(axis: int) -> tuple[float, float]:
    return (-1.05, 1.05) if axis == 0 else (-0.03, 1.03)


def _legend(predicted: NDArray[np.floating] | None, target: NDArray[np.floating] | None) -> list[Line2D]:
    entries = [
        Line2D([], [], color=colour, marker=marker, linestyle="", label=name)
        for name, (colour, marker) in _LOOKS.items()
    ]
    if target is not None:
        entries.append(Line2D([], [], color="0.25", marker="x", linestyle="", label="target"))
    if predicted is not None:
        entries.append(
            Line2D([], [], color="0.1", marker="o", markerfacecolor="white", linestyle="", label="prediction")
        )
    return entries
