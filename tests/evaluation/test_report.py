"""What the plots say where there is nothing to draw."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from etude.evaluation import report
from etude.evaluation.report import query_plot


@pytest.mark.parametrize(
    ("overlap", "said"), [(float("nan"), ["too few tracks to choose 10 from"]), (0.0, [])]
)
def test_no_choice_of_tracks_does_not_look_like_no_agreement(
    tmp_path: Path, overlap: float, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(report.plt, "close", drawn.append)
    places = np.arange(9)[None] + 1
    path = query_plot(["slow $piano"], (places, places), [overlap], overlap, tmp_path / "queries.png")
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert [text.get_text() for text in drawn[0].axes[0].texts] == said
