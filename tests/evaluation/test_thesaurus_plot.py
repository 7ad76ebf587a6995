"""The map of feelings is a picture with all that was given to it."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

from etude.emotion.thesaurus import CATEGORIES, thesaurus
from etude.evaluation.thesaurus_plot import thesaurus_plot

ROWS = thesaurus().vad_N4[::9]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were saved, still there to be looked at."""
    figures: list[Any] = []
    monkeypatch.setattr(plt, "close", figures.append)
    return figures


@pytest.mark.parametrize("predicted", [None, ROWS])
@pytest.mark.parametrize("target", [None, ROWS + 0.02])
def test_all_nodes_and_what_is_given_are_in_every_panel(
    tmp_path: Path, drawn: list[Any], predicted: Any, target: Any
) -> None:
    path = thesaurus_plot(thesaurus(), tmp_path / "thesaurus.png", predicted, target)
    assert path.read_bytes().startswith(b"\x89PNG")
    n_given = sum(len(rows) for rows in (predicted, target) if rows is not None)
    n_joined = len(ROWS) if predicted is not None and target is not None else 0
    assert len(drawn[0].axes) == 3
    for axes in drawn[0].axes:
        assert sum(len(drawing.get_offsets()) for drawing in axes.collections) == 216 + n_given
        assert len(axes.lines) == n_joined
    entries = {text.get_text() for text in drawn[0].legends[0].get_texts()}
    assert entries == {*CATEGORIES} | ({"prediction"} if predicted is not None else set()) | (
        {"target"} if target is not None else set()
    )


def test_no_figure_stays_open(tmp_path: Path) -> None:
    before = plt.get_fignums()
    thesaurus_plot(thesaurus(), tmp_path / "thesaurus.png", np.zeros((0, 4)))
    assert plt.get_fignums() == before
