"""Optuna's tree-structured Parzen estimator as a sweep's search, and how it goes on after a kill.

Its sampler's state follows from its seed and from what it was asked and told, in order. That order is the
journal's: a proposal was an ask, an end was a tell. A restarted driver asks and tells the same again.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from etude.errors import UserError
from etude.tuning.journal import Entry, Journal
from etude.tuning.space import Distribution, rounded

optuna.logging.set_verbosity(optuna.logging.WARNING)


class OptunaSearch:
    """Proposes where trials that ended did well."""

    def __init__(self, space: Mapping[str, Distribution], n_trials: int, seed: tuple[int, int]) -> None:
        self._space = space
        self._distributions = {key: optuna_distribution(space[key]) for key in sorted(space)}
        sampler = optuna.samplers.TPESampler(
            seed=int(np.random.SeedSequence(seed).generate_state(1)[0]),
            n_startup_trials=min(10, max(1, n_trials // 3)),  # of a short sweep, not all are drawn blindly
        )
        self._study = optuna.create_study(sampler=sampler, direction="maximize")
        self._trials: dict[int, optuna.Trial] = {}
        self._heard = 0

    def propose(self, journal: Journal) -> dict[str, Any]:
        """The next trial's overrides.

        Raises UserError if the journal was not written by the same search, with the same Optuna.
        """
        for entry in journal.entries[self._heard :]:
            self._hear(entry, journal)
        self._heard = len(journal.entries)
        return self._ask(len(journal.proposed()))

    def _hear(self, entry: Entry, journal: Journal) -> None:
        if entry.overrides is not None and self._ask(entry.trial) != entry.overrides:
            raise UserError(
                f"the sweep's journal holds another trial {entry.trial:03d} than Optuna {optuna.__version__} "
                "proposes: continue it with the packages it was begun with, or begin one of another name"
            )
        if entry.ended:
            self._tell(entry, journal)

    def _ask(self, number: int) -> dict[str, Any]:
        if number not in self._trials:
            self._trials[number] = self._study.ask(self._distributions)
        drawn = self._trials[number].params
        return {key: _value(self._space[key], drawn[key]) for key in self._distributions}

    def _tell(self, entry: Entry, journal: Journal) -> None:
        """One that was stopped early has no final score: it ranks below those that have, by its epochs."""
        trial, best = self._trials[entry.trial], journal.best(entry.trial)
        if entry.ended == "failed" or best is None:
            self._study.tell(trial, state=TrialState.FAIL)
        elif entry.ended == "stopped":
            trial.report(best, step=journal.reported_epoch(entry.trial))
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, best)


def optuna_distribution(distribution: Distribution) -> BaseDistribution:
    """The same as Optuna knows it; of a choice, which may list anything, the place in the list."""
    if distribution.choice is not None:
        return CategoricalDistribution(range(len(distribution.choice)))
    if distribution.uniform is not None:
        return FloatDistribution(*distribution.uniform)
    if distribution.loguniform is not None:
        return FloatDistribution(*distribution.loguniform, log=True)
    if distribution.quniform is not None:
        low, high, step = distribution.quniform
        return FloatDistribution(low, high, step=step)
    assert distribution.randint is not None
    low_int, above = distribution.randint
    return IntDistribution(low_int, above - 1)


def _value(distribution: Distribution, drawn: Any) -> Any:
    return distribution.choice[drawn] if distribution.choice is not None else rounded(drawn)
