"""A sweep: trials drawn from a space, trained side by side, the worse ones stopped early by ASHA.

A sweep is a folder. `sweep.yaml` holds its configuration and every trial's overrides, `journal.jsonl` what
happened, `trials/003/` a trial's checkpoints. The same command continues an unfinished sweep and starts a
new one, with other draws, after a finished one.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # with verbose=0 below, Tune then prints nothing of its own
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C ends the sweep unfinished, to be continued

import ray
import yaml
from ray import tune

from etude.config import mask
from etude.errors import UserError
from etude.experiments.base import Experiment
from etude.storage.files import Files
from etude.storage.lock import Lock
from etude.students.cost import Cost
from etude.tracking.mlflow import Tracking
from etude.training.checkpoint import load_latest
from etude.training.loop import SCORE
from etude.tuning.follow import MLFLOW_STATUS, Follow
from etude.tuning.journal import Entry, Journal
from etude.tuning.scheduler import JournaledAsha
from etude.tuning.space import check_space, sample
from etude.tuning.trial import SweepConfig, run_trial, trial_settings


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


def trial_folder(sweep: Files, number: int) -> Files:
    """Where a trial keeps its checkpoints."""
    return sweep.at(f"trials/{number:03d}")


def draw(settings: Experiment, sweep: SweepConfig, seed: tuple[int, int]) -> list[dict[str, Any]]:
    """Every trial's overrides. Raises UserError if the space or one of its values does not fit."""
    if bool(sweep.space) == bool(sweep.cases):
        raise UserError(
            "give a sweep either sweep.space, from which trials are drawn, or sweep.cases, which lists them"
        )
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
    folder, number, continued = _choose_folder(settings.place.at("sweeps"), settings, sweep, study.data_hash)
    lock = Lock(folder, folder.name)
    drawn = draw(settings, sweep, (settings.seed, number))
    names = list(sweep.cases) or [f"{index:03d}" for index in range(len(drawn))]
    costs = [_cost(trial_settings(settings, one), trial_folder(folder, n)) for n, one in enumerate(drawn)]
    _write_plan(folder, settings, sweep, drawn)
    journal = Journal(folder.address("journal.jsonl"))
    parent = tracking.run(folder.name, folder.name, tags={**tags, "etude.kind": "sweep"})
    tracking.log_params(parent, {**settings.model_dump(), "sweep": sweep.model_dump()})
    ended = journal.ended()
    todo = [index for index in range(len(drawn)) if index not in ended]
    say(
        f"sweep {folder.name}: {len(drawn)} trials, {len(ended)} ended before"
        if continued
        else f"sweep {folder.name}: {len(drawn)} trials"
    )
    runs = {
        index: tracking.run(
            f"{folder.name}/{index:03d}",
            f"trial {names[index]}",
            parent=parent,
            tags={**tags, "etude.kind": "trial"},
        )
        for index in range(len(drawn))
    }
    if todo:
        with lock.guarding():
            _tune(settings, sweep, folder, drawn, todo, journal, tracking, runs, say)
    left = set(range(len(drawn))) - set(journal.ended())
    assert not left, f"trials {sorted(left)} have not ended"
    for index in ended:
        tracking.end(runs[index], MLFLOW_STATUS[ended[index].ended])
    trials = _table(settings, drawn, names, costs, journal)
    result = SweepResult(folder.name, folder, trials, parent, runs, continued, lock)
    if all(trial.score is None for trial in trials):
        tracking.end(parent, "FAILED")
        finish(result, {"winner": None})
        reason = next((trial.reason for trial in trials if trial.reason), "no trial reported anything")
        raise UserError(f"every trial of {folder.name} failed ({reason}): see {folder}/ray")
    return result


def finish(result: SweepResult, outcome: Mapping[str, Any]) -> None:
    """Mark a sweep as finished and let go of it; the next one with the same settings is new."""
    result.lock.check()
    result.folder.write("result.json", json.dumps(outcome, indent=2).encode())
    result.lock.release()


def _tune(
    settings: Experiment,
    sweep: SweepConfig,
    folder: Files,
    drawn: list[dict[str, Any]],
    todo: list[int],
    journal: Journal,
    tracking: Tracking,
    runs: dict[int, str],
    say: Callable[[str], None],
) -> None:
    resources = {"CPU": sweep.cpus_per_trial}
    if sweep.gpus_per_trial:
        resources["GPU"] = sweep.gpus_per_trial
    there = ray.cluster_resources()
    at_once = min(int(there.get(name, 0) // need) for name, need in resources.items())
    if at_once < 1:
        raise UserError(
            f"a trial needs {resources}, the cluster has less: lower sweep.cpus_per_trial or gpus_per_trial"
        )
    for index in todo:
        chosen = trial_settings(settings, drawn[index])
        tracking.log_params(runs[index], chosen.model_dump())
    work = {
        index: (
            trial_settings(settings, drawn[index]),
            trial_folder(folder, index),
            journal.reported_epoch(index),
        )
        for index in todo
    }
    filesystem, path = folder.arrow()
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(run_trial, work=work), resources),
        param_space={"trial": tune.grid_search(todo)},
        tune_config=tune.TuneConfig(
            scheduler=JournaledAsha(
                journal, sweep.asha, max_epochs=_most_epochs(settings, drawn), metric=SCORE
            ),
            max_concurrent_trials=at_once,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=tune.FailureConfig(max_failures=sweep.max_failures),
            callbacks=[Follow(journal, tracking, runs, settings.judged_by, say, len(drawn))],
            verbose=0,
        ),
    )
    tuner.fit()


def _choose_folder(
    root: Files, settings: Experiment, sweep: SweepConfig, data_hash: str
) -> tuple[Files, int, bool]:
    """The folder of the unfinished sweep with these settings and data, or of a new one."""
    # The data's hash stands for captions and tokenizers: not what they cost, or where they lie.
    without = {"home", "storage", "storage_cache_gb", "tracking", "prepare", "captions", "tokenizer"}
    same = settings.model_dump(mode="json", exclude=without)
    same["sweep"] = sweep.model_dump(mode="json")
    digest = hashlib.sha256(json.dumps([same, data_hash], sort_keys=True).encode()).hexdigest()[:8]
    prefix = f"{sweep.name}-{digest}"
    begun = {path.split("/")[0] for path in root.list("", "/sweep.yaml")}
    last = max((int(name.rsplit("-", 1)[1]) for name in begun if name.startswith(f"{prefix}-")), default=0)
    unfinished = last > 0 and not root.exists(f"{prefix}-{last:03d}/result.json")
    number = last if unfinished else last + 1
    return root.at(f"{prefix}-{number:03d}"), number, unfinished


def _write_plan(folder: Files, settings: Experiment, sweep: SweepConfig, drawn: list[dict[str, Any]]) -> None:
    plan = {"settings": mask(settings), "sweep": mask(sweep), "trials": drawn}
    folder.write("sweep.yaml", yaml.safe_dump(plan, sort_keys=False).encode())


def _most_epochs(settings: Experiment, drawn: list[dict[str, Any]]) -> int:
    return max(trial_settings(settings, overrides).training.most_epochs for overrides in drawn)


def _cost(chosen: Experiment, folder: Files) -> Cost:
    """A trial's cost. Raises UserError if it is to begin with a file that cannot be used."""
    begun = load_latest(folder)
    return chosen.cost(begun and begun["model"])


def _table(
    settings: Experiment,
    drawn: list[dict[str, Any]],
    names: Sequence[str],
    costs: Sequence[Cost],
    journal: Journal,
) -> list[Trial]:
    ended = journal.ended()
    rows = []
    for number, overrides in enumerate(drawn):
        chosen = trial_settings(settings, overrides)
        entry = ended.get(number, Entry(number))
        rows.append(
            Trial(
                number,
                names[number],
                overrides,
                chosen,
                journal.reported_epoch(number),
                journal.best(number),
                entry.ended,
                costs[number].parameters,
                costs[number].macs,
                entry.reason,
            )
        )
    return sorted(rows, key=lambda row: math.inf if row.score is None else -row.score)
