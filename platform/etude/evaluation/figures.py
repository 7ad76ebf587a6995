"""What an evaluation finds, in the one form that training, publishing, cards and summaries know."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Line:
    """One figure as a reader sees it."""

    name: str
    value: str
    beside: str  # what doing nothing would give


class Figures(Protocol):
    """Figures of one student on one held-out set, each beside what a constant or chance would reach."""

    @property
    def score(self) -> float:
        """The one by which students are chosen, higher is better; nan where it could not be told."""
        ...

    def as_dict(self, prefix: str) -> dict[str, float]:
        """Plain numbers named `<prefix>/<figure>`, for reports that take only those."""
        ...

    def lines(self, things: str) -> Sequence[Line]:
        """All that a reader should see, the most telling first."""
        ...

    def held_out(self, things: str) -> str:
        """What it was tested on, such as "23 held-out tracks"."""
        ...


def shown(figure: float, digits: int = 3) -> str:
    """A figure as text; a dash where too few held-out tracks leave none."""
    return "-" if math.isnan(figure) else f"{figure:.{digits}f}"
