"""ASHA whose rungs survive the driver: they are rebuilt from the sweep's journal."""

from types import SimpleNamespace
from typing import Any

from pydantic import Field
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from etude.config import Section
from etude.tuning.journal import Entry, Journal


class AshaConfig(Section):
    """Asynchronous successive halving (Li et al., arXiv:1810.05934)."""

    grace_epochs: int = Field(4, ge=1, description="no trial is stopped before")
    reduction_factor: float = Field(3.0, gt=1, description="one in so many goes on at each rung")


class JournaledAsha(ASHAScheduler):  # type: ignore[misc]
    """Ray's ASHA on the reported epoch, writing every decision down before it takes effect.

    Ray Tune gives a restarted trial another id, so rungs are kept by the trial's number in the sweep.
    """

    def __init__(self, journal: Journal, config: AshaConfig, *, max_epochs: int, metric: str) -> None:
        super().__init__(
            time_attr="epoch",
            metric=metric,
            mode="max",
            max_t=max(max_epochs, config.grace_epochs),
            grace_period=config.grace_epochs,
            reduction_factor=config.reduction_factor,
            stop_last_trials=False,
        )
        self._journal = journal
        self._max_epochs = max_epochs
        for trial in {entry.trial for entry in journal.entries}:
            super().on_trial_add(None, _numbered(trial))
        for entry in journal.entries:
            if entry.score is not None:
                super().on_trial_result(
                    None, _numbered(entry.trial), {"epoch": entry.epoch, metric: entry.score}
                )

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_add(tune_controller, _numbered(trial.config["trial"]))

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        number = trial.config["trial"]
        if result["epoch"] <= self._journal.reported_epoch(number):
            return str(TrialScheduler.CONTINUE)  # a restarted trial tells what was heard before
        decision: str = super().on_trial_result(tune_controller, _numbered(number), result)
        if result["epoch"] >= self._max_epochs:
            decision = str(TrialScheduler.CONTINUE)  # nothing is left to stop: the trial finishes
        stopped = decision == TrialScheduler.STOP
        self._journal.append(
            Entry(number, result["epoch"], result[self._metric], ended="stopped" if stopped else "")
        )
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        number = trial.config["trial"]
        if number not in self._journal.ended():
            self._journal.append(Entry(number, ended="finished"))

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Called at every failure, also before a retry; the sweep's callback notes the last one."""

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Nothing to forget: rungs keep what ended trials reached."""


def _numbered(trial: int) -> Any:
    return SimpleNamespace(trial_id=str(trial))
