"""Retrieval both ways beside chance, as a person takes it in at a glance."""

from dataclasses import asdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from etude.evaluation.cross_modal import CrossModal

_FIGURES = {"recall_at_1": "R@1", "recall_at_5": "R@5", "recall_at_10": "R@10", "mrr": "MRR"}


def cross_modal_plot(found: CrossModal, path: Path) -> Path:
    """Recalls and mean reciprocal rank of both ways, and a line where chance is."""
    figures, place = asdict(found), np.arange(len(_FIGURES))
    figure, both = plt.subplots(1, 2, figsize=(9, 4), sharey=True, constrained_layout=True)
    for axes, way in zip(both, ("text_to_music", "music_to_text"), strict=True):
        values = [figures[f"{way}_{name}"] for name in _FIGURES]
        chances = [figures[f"{way}_{name}_chance"] for name in _FIGURES]
        bars = axes.bar(place, values, color="tab:blue", label="pair")
        axes.bar_label(bars, fmt="%.2f", padding=2)
        axes.hlines(chances, place - 0.4, place + 0.4, color="tab:gray", linestyle="--", label="chance")
        axes.set_xticks(place, list(_FIGURES.values()))
        axes.set(title=way.replace("_", " "), ylim=(0, 1.08))
    both[0].legend()
    figure.suptitle(f"{found.n_tracks:.0f} held-out tracks, {found.n_captions:.0f} captions")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
