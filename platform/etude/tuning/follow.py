"""What the driver does as trials report and end: MLflow, the journal's last word, a line for the user."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune

from etude.errors import StorageError, is_disk_full
from etude.tracking.sender import Sender
from etude.tuning.journal import Entry, Journal

FIGURES = ("learning_rate", "score", "stage", "workers", "at_ms")
MLFLOW_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class Follow(tune.Callback):  # type: ignore[misc]
    """Hands every report over to MLflow's sender, and says how trials end; waits for no server."""

    def __init__(
        self,
        journal: Journal,
        sender: Sender,
        runs: dict[int, str],
        judged_by: str,
        say: Callable[[str], None],
        total: int,
    ) -> None:
        self._journal = journal
        self._sender = sender
        self._runs = runs
        self._judged_by = judged_by
        self._say = say
        self._total = total
        self.fault: OSError | None = None  # for which no trial is to blame
        self._sent = {number: journal.reported_epoch(number) for number in journal.proposed()}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        number = trial.config["trial"]
        if result["epoch"] <= self._sent.get(number, 0):  # a restarted trial tells some again
            return
        self._sent[number] = result["epoch"]
        metrics = {k: v for k, v in result.items() if "/" in k or k in FIGURES or k.startswith("seconds")}
        metrics = {k: v for k, v in metrics.items() if isinstance(v, float) and not k.startswith("config/")}
        metrics["epoch"] = result["epoch"]
        self._sender.log_history(self._runs[number], [metrics])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["trial"]
        if number in self._journal.ended():  # else its generation has
            self._end(number, self._journal.ended()[number])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.fault = self._journal.fault or _of_storage(trial)  # Tune takes the first for the trial's, too
        if self.fault:
            raise self.fault  # ends the sweep, unfinished, and the same command goes on with this trial
        number = trial.config["trial"]
        lines = Path(trial.error_file).read_text().strip().splitlines() if trial.error_file else []
        reason = lines[-1] if lines else "its process was lost"
        if number not in self._journal.ended():  # one that was stopped may still be lost on its way out
            self._journal.append(Entry(number, ended="failed", reason=reason))
        self._end(number, self._journal.ended()[number])

    def _end(self, number: int, entry: Entry) -> None:
        self._sender.end(self._runs[number], MLFLOW_STATUS[entry.ended])
        best = self._journal.best(number)
        self._say(
            f"trial {number:03d} {entry.ended} after {self._journal.reported_epoch(number)} epochs, "
            + (f"{self._judged_by} {best:.3f}" if best is not None else entry.reason)
            + f" ({len(self._journal.ended())} of {self._total} ended)"
        )


def _of_storage(trial: Any) -> OSError | None:
    """The error that ended a trial, if it is a full disk's or that of storage which cannot be reached."""
    file = trial.pickled_error_file
    error = cloudpickle.loads(Path(file).read_bytes()) if file else None
    cause = getattr(error, "cause", error)
    return cause if isinstance(cause, StorageError) or is_disk_full(cause) else None
