"""A sweep: trials from a search space, trained side by side, the worse ones stopped early by ASHA.

A sweep is a folder. `sweep.yaml` holds its configuration and every trial's overrides, `journal.jsonl` what
happened, `trials/003/` a trial's checkpoints. The same command continues an unfinished sweep and starts a
new one, with other draws, after a finished one.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import yaml

from etude.config import mask
from etude.errors import UserError
from etude.experiments.base import Experiment
from etude.storage.files import Files
from etude.storage.lock import Lock
from etude.tracking.mlflow import Tracking
from etude.tuning.journal import Journal
from etude.tuning.optuna_search import OptunaSearch
from etude.tuning.population import check_changeable
from etude.tuning.run import Going, run_trials
from etude.tuning.search import Listed, Search
from etude.tuning.space import check_space, sample
from etude.tuning.trial import SweepConfig, trial_folder, trial_settings

EPOCHS = ("training.epochs", "training.stage2_epochs")


@dataclass(frozen=True)
class Trial:
    """One trial as a sweep's table shows it."""

    number: int
    name: str
    overrides: dict[str, Any]
    settings: Experiment
    epochs: int
    score: float | None  # best so far
    ended: str
    parameters: int
    macs: int
    reason: str = ""


@dataclass(frozen=True)
class SweepResult:
    """A finished sweep; `trials` are sorted, best first."""

    name: str
    folder: Files
    trials: list[Trial]
    run_id: str
    trial_runs: dict[int, str]
    continued: bool
    lock: Lock  # held until the sweep is finished, or this process ends

    @property
    def winner(self) -> Trial:
        return self.trials[0]

    def checkpoint(self, trial: Trial) -> str:
        """The trial's best checkpoint."""
        return trial_folder(self.folder, trial.number).address("best.pt")


def draw(settings: Experiment, sweep: SweepConfig, seed: tuple[int, int]) -> list[dict[str, Any]]:
    """Every trial's overrides; with Optuna, as many that it might propose.

    Raises UserError if the space, one of its values or the way in which it is searched does not fit.
    """
    if bool(sweep.space) == bool(sweep.cases):
        raise UserError(
            "give a sweep either sweep.space, from which trials are drawn, or sweep.cases, which lists them"
        )
    if sweep.cases and (sweep.search != "random" or sweep.population):
        raise UserError("sweep.search and sweep.population need sweep.space: leave sweep.cases out, or them")
    if sweep.population and sweep.search != "random":
        raise UserError("a population moves its values by itself: leave sweep.search or sweep.population out")
    if sweep.population:
        check_changeable(sweep.space)
    check_space([*sweep.space, *(key for case in sweep.cases.values() for key in case)], type(settings))
    drawn = list(sweep.cases.values()) or sample(sweep.space, sweep.trials, seed)
    for overrides in drawn:
        trial_settings(settings, overrides)
    return drawn


def run_sweep(
    settings: Experiment,
    sweep: SweepConfig,
    tracking: Tracking,
    tags: Mapping[str, str],
    say: Callable[[str], None],
) -> SweepResult:
    """Run or continue the sweep that the settings describe. Needs a Ray session and prepared data.

    Raises UserError if every trial failed, or another process is at work on the same sweep.
    """
    draw(settings, sweep, (settings.seed, 0))
    study = settings.open()
    folder, number, continued, lock = _take_folder(
        settings.place.at("sweeps"), settings, sweep, study.data_hash
    )
    with ExitStack() as held:  # let go of again, unless the caller is given it
        held.callback(lock.release)
        seed = (settings.seed, number)
        drawn = draw(settings, sweep, seed)
        search: Search
        if sweep.search == "random":
            listed, search = drawn, Listed(drawn)
        else:
            listed, search = [], OptunaSearch(sweep.space, sweep.trials, seed)
        journal = Journal(folder.address("journal.jsonl"))
        going = Going(
            settings,
            sweep,
            folder,
            seed,
            journal,
            search,
            len(drawn),
            list(sweep.cases),
            tracking,
            dict(tags),
            say,
        )
        for index, overrides in enumerate(listed):  # a file that one of them lacks shows before any trains
            going.cost(index, overrides)
        _write_plan(folder, settings, sweep, listed or list(map(journal.overrides, journal.proposed())))
        tracking.log_params(going.parent, {**settings.model_dump(), "sweep": sweep.model_dump()})
        before = f", {len(journal.ended())} ended before" if continued else ""
        say(f"sweep {folder.name}: {len(drawn)} trials{before}")
        with lock.guarding():
            run_trials(going, _most_epochs(settings, sweep, drawn))
        left = set(range(len(drawn))) - set(journal.ended())
        assert not left, f"trials {sorted(left)} have not ended"
        tracking.deliver()
        _write_plan(folder, settings, sweep, listed or list(map(journal.overrides, journal.proposed())))
        result = SweepResult(folder.name, folder, _table(going), going.parent, going.runs, continued, lock)
        if all(trial.score is None for trial in result.trials):
            tracking.give_up([going.parent])
            finish(result, {"winner": None})
            reason = next(
                (trial.reason for trial in result.trials if trial.reason), "no trial reported anything"
            )
            raise UserError(f"every trial of {folder.name} failed ({reason}): see {folder}/ray")
        held.pop_all()
        return result


def finish(result: SweepResult, outcome: Mapping[str, Any]) -> None:
    """Mark a sweep as finished and let go of it; the next one with the same settings is new."""
    result.lock.check()
    result.folder.write("result.json", json.dumps(outcome, indent=2).encode())
    result.lock.release()


def _take_folder(
    root: Files, settings: Experiment, sweep: SweepConfig, data_hash: str
) -> tuple[Files, int, bool, Lock]:
    """The folder of the unfinished sweep with these settings and data, or of a new one, held alone."""
    # The data's hash stands for captions and tokenizers: not what they cost, or where they lie.
    without = {"home", "storage", "storage_cache_gb", "tracking", "prepare", "captions", "tokenizer"}
    same = settings.model_dump(mode="json", exclude=without)
    same["sweep"] = sweep.model_dump(mode="json")
    digest = hashlib.sha256(json.dumps([same, data_hash], sort_keys=True).encode()).hexdigest()[:8]
    prefix = f"{sweep.name}-{digest}"
    begun = {path.split("/")[0] for path in root.list("", "/sweep.yaml")}
    numbered = (re.fullmatch(rf"{re.escape(prefix)}-(\d+)", name) for name in begun)
    number = max((int(found[1]) for found in numbered if found), default=1)
    while True:
        folder = root.at(f"{prefix}-{number:03d}")
        lock = Lock(folder, folder.name)
        if not folder.exists("result.json"):
            return folder, number, folder.name in begun, lock
        lock.release()  # finished, perhaps just now by another
        number += 1


def _write_plan(folder: Files, settings: Experiment, sweep: SweepConfig, drawn: list[dict[str, Any]]) -> None:
    plan = {"settings": mask(settings), "sweep": mask(sweep), "trials": drawn}
    folder.write("sweep.yaml", yaml.safe_dump(plan, sort_keys=False).encode())


def _most_epochs(settings: Experiment, sweep: SweepConfig, drawn: list[dict[str, Any]]) -> int:
    largest = {key: sweep.space[key].largest for key in EPOCHS if key in sweep.space}
    return max(trial_settings(settings, one).training.most_epochs for one in (*drawn, largest))


def _table(going: Going) -> list[Trial]:
    journal = going.journal
    rows = [
        Trial(
            number,
            going.name(number),
            journal.best_overrides(number),
            trial_settings(going.settings, journal.best_overrides(number)),
            journal.reported_epoch(number),
            journal.best(number),
            entry.ended,
            going.costs[number].parameters,
            going.costs[number].macs,
            entry.reason,
        )
        for number, entry in sorted(journal.ended().items())
    ]
    return sorted(rows, key=lambda row: math.inf if row.score is None else -row.score)
