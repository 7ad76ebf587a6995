"""ASHA that decides the same whoever comes first, and whenever its driver was killed.

Ray's ASHA compares a trial at a rung with those that came there before, so which trials it stops depends on
how fast each of them happened to be. Here trials are judged in the order of their numbers: one that comes to
a rung while a lower number may still come there is paused until that is known. A trial's figures depend on
nothing but its configuration and the seed, so the rungs and the set of stopped trials do too.
"""

import math
from types import SimpleNamespace
from typing import Any

from pydantic import Field
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from etude.config import Section
from etude.tuning.journal import Entry, Journal

CONTINUE, PAUSE, STOP = (
    str(word) for word in (TrialScheduler.CONTINUE, TrialScheduler.PAUSE, TrialScheduler.STOP)
)


class AshaConfig(Section):
    """Asynchronous successive halving (Li et al., arXiv:1810.05934)."""

    grace_epochs: int = Field(4, ge=1, description="no trial is stopped before")
    reduction_factor: float = Field(3.0, gt=1, description="one in so many goes on at each rung")


class Journaled(FIFOScheduler):  # type: ignore[misc]
    """Writes every report down once, before anything comes of it, and stops nothing.

    With `until`, a trial that has come to this epoch has not ended: it goes on in the next generation.
    """

    def __init__(self, journal: Journal, *, metric: str, until: int | None = None) -> None:
        super().__init__()
        self._journal = journal
        self._metric = metric
        self._until = until

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        number = trial.config["trial"]
        if result["epoch"] > self._journal.reported_epoch(number):  # a restarted trial tells some again
            self._journal.append(Entry(number, result["epoch"], result[self._metric]))
        return CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        number = trial.config["trial"]
        if number not in self._journal.ended() and self._journal.reported_epoch(number) != self._until:
            self._journal.append(Entry(number, ended="finished"))

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Called at every failure, also before a retry; the sweep's callback notes the last one."""

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Nothing to forget: the journal keeps what ended trials reached."""


class OrderedAsha(Journaled):
    """Ray's ASHA on the reported epoch, asked rung by rung in the order of the trials' numbers."""

    def __init__(self, journal: Journal, config: AshaConfig, *, max_epochs: int, metric: str) -> None:
        super().__init__(journal, metric=metric)
        self._asha = ASHAScheduler(
            time_attr="epoch",
            metric=metric,
            mode="max",
            max_t=max(max_epochs, config.grace_epochs),
            grace_period=config.grace_epochs,
            reduction_factor=config.reduction_factor,
            stop_last_trials=False,
        )
        milestones = {math.ceil(at) for bracket in self._asha._brackets for at, _ in bracket._rungs}
        self._rungs = sorted(epoch for epoch in milestones if epoch < max_epochs)
        self._judged: dict[int, set[int]] = {epoch: set() for epoch in self._rungs}
        self.settle()

    def settle(self) -> None:
        """Judge all that can be judged by now, and write down who is stopped."""
        for epoch in self._rungs:
            for number in sorted(self._journal.proposed()):
                score = self._journal.score(number, epoch)
                on_its_way = self._journal.reported_epoch(number) < epoch
                if on_its_way and number not in self._journal.ended():
                    break  # and all with a higher number wait for it
                if score is not None and number not in self._judged[epoch]:
                    self._judge(number, epoch, score)

    def _judge(self, number: int, epoch: int, score: float) -> None:
        trial = SimpleNamespace(trial_id=str(number))
        if not any(number in judged for judged in self._judged.values()):
            self._asha.on_trial_add(None, trial)
        self._judged[epoch].add(number)
        decision = self._asha.on_trial_result(None, trial, {"epoch": epoch, self._metric: score})
        if decision == STOP and number not in self._journal.ended():
            self._journal.append(Entry(number, ended="stopped"))

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        super().on_trial_result(tune_controller, trial, result)
        self.settle()
        number, epoch = trial.config["trial"], result["epoch"]
        if number in self._journal.ended():
            return STOP
        waits = epoch in self._judged and number not in self._judged[epoch]
        return PAUSE if waits else CONTINUE

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """A paused trial whose rung is settled; Tune starts those that are pending by itself."""
        self.settle()
        paused = [trial for trial in tune_controller.get_trials() if trial.status == Trial.PAUSED]
        for trial in sorted(paused, key=lambda trial: int(trial.config["trial"])):
            number = trial.config["trial"]
            epoch = self._journal.reported_epoch(number)
            if number in self._journal.ended():
                tune_controller.stop_trial(trial)
            elif epoch not in self._judged or number in self._judged[epoch]:
                return trial
        return None
