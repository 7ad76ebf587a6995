"""The learning rate as a factor of its peak: linear warm-up, then a cosine or a plateau."""

import math
from typing import Any

from pydantic import Field

from etude.config import Section


class PlateauConfig(Section):
    """When the plateau schedule lowers the learning rate."""

    factor: float = Field(0.3, gt=0, lt=1, description="what the learning rate is multiplied by")
    patience: int = Field(3, ge=0, description="epochs without progress that are waited for")
    threshold: float = Field(0.002, ge=0, description="a rise of the score that counts as progress")


class Schedule:
    """State of the learning rate; steps are counted from 0 over the whole training.

    `cosine` falls from 1 to `floor` at the last step. `plateau` stays at 1 and is multiplied by its factor,
    down to `floor`, whenever the score has not risen by its threshold for more than its patience.
    """

    def __init__(
        self,
        kind: str,
        *,
        total_steps: int,
        warmup_steps: int,
        floor: float = 0.01,
        plateau: PlateauConfig | None = None,
    ) -> None:
        assert kind in ("cosine", "plateau")
        self._kind = kind
        self._total_steps = total_steps
        self._warmup_steps = warmup_steps
        self._floor = floor
        self._plateau = plateau or PlateauConfig()
        self._level = 1.0
        self._best = -math.inf
        self._waited = 0

    def factor(self, step: int) -> float:
        """The factor for one step."""
        if step < self._warmup_steps:
            return (step + 1) / (self._warmup_steps + 1)
        if self._kind == "plateau":
            return max(self._level, self._floor)
        done = (step - self._warmup_steps) / max(1, self._total_steps - self._warmup_steps)
        return self._floor + (1 - self._floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    def observe(self, score: float) -> None:
        """Hear an epoch's score, higher is better; a nan counts as no progress."""
        if score > self._best + self._plateau.threshold:
            self._best, self._waited = score, 0
            return
        self._waited += 1
        if self._waited > self._plateau.patience:
            self._level, self._waited = self._level * self._plateau.factor, 0

    def state_dict(self) -> dict[str, Any]:
        return {"level": self._level, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._level, self._best, self._waited = state["level"], state["best"], state["waited"]
