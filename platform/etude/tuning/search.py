"""Where a sweep's configurations come from: listed or drawn beforehand, or proposed by Optuna as it goes.

A search's only state is the journal: which trials it proposed, and how they ended, in that order.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ray.tune.search import Searcher

from etude.tuning.journal import Entry, Journal


class Search(Protocol):
    """Proposes one configuration after another."""

    def propose(self, journal: Journal) -> dict[str, Any]:
        """The overrides of the trial that follows those in the journal."""
        ...


class Listed:
    """Configurations that are known beforehand."""

    def __init__(self, listed: Sequence[dict[str, Any]]) -> None:
        self._listed = listed

    def propose(self, journal: Journal) -> dict[str, Any]:
        return self._listed[len(journal.proposed())]


class Proposer(Searcher):  # type: ignore[misc]
    """What Ray Tune asks for the next trial: first those that were cut off, then new ones up to `total`.

    `begin` is called with number and overrides before a new trial is written down, and may raise. With
    `until`, trials that have come to this epoch are left out.
    """

    def __init__(
        self,
        journal: Journal,
        search: Search,
        total: int,
        begin: Callable[[int, Mapping[str, Any]], None],
        until: int | None = None,
    ) -> None:
        super().__init__()
        self._journal = journal
        self._search = search
        self._total = total
        self._begin = begin
        self._cut_off = [
            number
            for number in journal.proposed()
            if number not in journal.ended() and (until is None or journal.reported_epoch(number) < until)
        ]

    @property
    def n_left(self) -> int:
        """Trials that are still to be run."""
        return len(self._cut_off) + self._total - len(self._journal.proposed())

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        if self._cut_off:
            number = self._cut_off.pop(0)
            overrides = self._journal.overrides(number)
        elif (number := len(self._journal.proposed())) < self._total:
            overrides = self._search.propose(self._journal)
            self._begin(number, overrides)
            self._journal.append(Entry(number, overrides=overrides))
        else:
            return str(Searcher.FINISHED)
        reported = self._journal.reported_epoch(number)
        return {"trial": number, "overrides": dict(overrides), "reported": reported}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """The search hears of it from the journal, in the order in which a restarted one would."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the state."""
