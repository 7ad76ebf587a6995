"""Population-based training (Jaderberg et al., arXiv:1711.09846) whose every decision can be made again.

All members train to the next multiple of `every_epochs`. Then the worst take over the checkpoint and the
configuration of one of the best each, with values near its own. Who does so, from whom and with which values
is a function of the journal and the seed: a driver that was killed decides the same.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from etude.config import Section
from etude.errors import UserError
from etude.tuning.journal import Entry, Journal
from etude.tuning.space import Distribution, Space, draw_one, rounded

# What a run takes from its configuration when it goes on from a checkpoint, and what no network depends on.
CHANGEABLE = (
    "training.learning_rate",
    "training.stage2_learning_rate",
    "training.weight_decay",
    "training.grad_clip",
)
CHANGEABLE_SECTIONS = ("objective.weights.", "objective.recognizer.", "augment.", "augmentation.")
FACTORS = (0.8, 1.2)


class PopulationConfig(Section):
    """Members of a population learn side by side, the worse from the better."""

    every_epochs: int = Field(4, ge=1, description="a generation: the worse then take over from the better")
    quantile: float = Field(0.25, ge=0, le=0.5, description="so many are worst, and so many best; 0: none")
    resample: float = Field(0.25, ge=0, le=1, description="how often a value is drawn anew, not moved a bit")


@dataclass(frozen=True)
class Takeover:
    """A member goes on with the donor's checkpoint and these overrides."""

    member: int
    donor: int
    overrides: dict[str, Any]

    def entry(self, epoch: int) -> Entry:
        """What the journal keeps of it."""
        return Entry(self.member, epoch, overrides=self.overrides, donor=self.donor)


def check_changeable(keys: Iterable[str]) -> None:
    """Raises UserError if a key shapes the network, or is fixed once a run has begun."""
    for key in keys:
        if key not in CHANGEABLE and not key.startswith(CHANGEABLE_SECTIONS):
            allowed = ", ".join((*CHANGEABLE, *(f"{section}*" for section in CHANGEABLE_SECTIONS)))
            raise UserError(
                f"sweep.population changes what varies in the middle of a run, and {key} must not change "
                f"there: take it out of the space, which may hold {allowed}"
            )


def generation_ends(every_epochs: int, epochs: int) -> list[int]:
    """The epochs at which generations end; the last is the training's own end."""
    return [*range(every_epochs, epochs, every_epochs), epochs]


def takeovers(
    journal: Journal, epoch: int, space: Space, config: PopulationConfig, seed: tuple[int, int]
) -> list[Takeover]:
    """Who takes over from whom once all have come to `epoch`. The same whenever it is asked."""
    scores = {n: journal.score(n, epoch) for n in journal.proposed()}
    known = {n: -math.inf if math.isnan(s) else s for n, s in scores.items() if s is not None}
    ranked = sorted(known, key=lambda number: (-known[number], number))
    n_each = min(math.ceil(config.quantile * len(ranked)), len(ranked) // 2)
    best, worst = ranked[:n_each], ranked[len(ranked) - n_each :]
    kept = _holds_the_best(journal, ranked, epoch)
    found = []
    for member in sorted(worst):
        if member == kept or known[member] == known[best[0]]:
            continue
        random_state = np.random.default_rng([*seed, epoch, member])
        donor = int(random_state.choice([one for one in best if math.isfinite(known[one])]))
        values = _overrides_at(journal, donor, epoch)
        moved = {key: _moved(space[key], values[key], config, random_state) for key in sorted(space)}
        found.append(Takeover(member, donor, moved))
    return found


def _holds_the_best(journal: Journal, members: Iterable[int], epoch: int) -> int | None:
    """Whose best checkpoint is the best of all: it must not be lost, however its last epoch went."""
    best: dict[int, float] = {}
    for entry in journal.entries:
        if entry.donor is not None and entry.epoch < epoch:
            best[entry.trial] = best[entry.donor]
        elif entry.score is not None and entry.epoch <= epoch and not math.isnan(entry.score):
            best[entry.trial] = max(entry.score, best.get(entry.trial, -math.inf))
    return max((n for n in members if n in best), key=lambda number: (best[number], -number), default=None)


def _overrides_at(journal: Journal, member: int, epoch: int) -> dict[str, Any]:
    """A member's overrides in the generation that ends at `epoch`."""
    found = [
        entry.overrides
        for entry in journal.entries
        if entry.trial == member and entry.overrides is not None and entry.epoch < epoch
    ]
    return found[-1]


def _moved(
    distribution: Distribution, value: Any, config: PopulationConfig, random_state: np.random.Generator
) -> Any:
    """A value near another, or one drawn anew; a number is multiplied, a choice goes to its neighbour."""
    if random_state.random() < config.resample:
        return draw_one(distribution, random_state)
    if distribution.choice is not None:
        place = distribution.choice.index(value) + int(random_state.choice([-1, 1]))
        return distribution.choice[min(max(place, 0), len(distribution.choice) - 1)]
    number = value * float(random_state.choice(FACTORS))
    if distribution.randint is not None:
        low, above = distribution.randint
        return min(max(round(number), low), above - 1)
    if distribution.quniform is not None:
        low_q, high_q, step = distribution.quniform
        return rounded(min(max(round(number / step) * step, low_q), high_q))
    low_f, high_f = distribution.uniform or distribution.loguniform or (-math.inf, math.inf)
    return min(max(rounded(number), low_f), high_f)
