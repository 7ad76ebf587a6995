"""One run of Ray Tune over a sweep's trials; what it leaves is in the journal, in MLflow and in folders."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # with verbose=0 below, Tune then prints nothing of its own
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C ends the sweep unfinished, to be continued

from ray import tune

from etude.cluster import DRIVER, nodes, times
from etude.errors import UserError
from etude.experiments.base import Experiment
from etude.storage.files import Files
from etude.students.cost import Cost
from etude.tracking.mlflow import Tracking
from etude.training.checkpoint import load_latest
from etude.training.loop import SCORE
from etude.tuning.capacity import concurrency
from etude.tuning.follow import MLFLOW_STATUS, Follow
from etude.tuning.journal import Entry, Journal
from etude.tuning.population import generation_ends, takeovers
from etude.tuning.scheduler import Journaled, OrderedAsha
from etude.tuning.search import Proposer, Search
from etude.tuning.takeover import own_epochs, take_over
from etude.tuning.trial import (
    SweepConfig,
    run_trial,
    run_trial_on_workers,
    trial_folder,
    trial_settings,
)


@dataclass
class Going:
    """A sweep that goes on: what it was told, and what has become of it."""

    settings: Experiment
    sweep: SweepConfig
    folder: Files
    seed: tuple[int, int]
    journal: Journal
    search: Search
    total: int
    names: Sequence[str]  # of listed trials
    tracking: Tracking
    tags: dict[str, str]
    say: Callable[[str], None]
    costs: dict[int, Cost] = field(default_factory=dict)

    @cached_property
    def parent(self) -> str:
        """The sweep's own run in MLflow."""
        tags = {**self.tags, "etude.kind": "sweep"}
        return self.tracking.run(self.folder.identity(), self.folder.name, tags=tags)

    @cached_property
    def runs(self) -> dict[int, str]:
        """Every trial's run in MLflow, made beforehand: later the server may be away."""
        sweep = self.folder.identity()
        return {
            number: self.tracking.run(
                f"{sweep}/{number:03d}",
                f"trial {self.name(number)}",
                parent=self.parent,
                tags={**self.tags, "etude.kind": "trial"},
            )
            for number in range(self.total)
        }

    def name(self, number: int) -> str:
        """What a trial is called in tables."""
        return self.names[number] if self.names else f"{number:03d}"

    def cost(self, number: int, overrides: Mapping[str, Any]) -> None:
        """Find what a trial's student costs. Raises UserError if it begins with a file that is of no use."""
        if number not in self.costs:
            begun = load_latest(trial_folder(self.folder, number))
            self.costs[number] = trial_settings(self.settings, overrides).cost(begun and begun["model"])

    def begin(self, number: int, overrides: Mapping[str, Any]) -> None:
        """What is done before a trial is run. Raises UserError if its overrides do not fit."""
        chosen = trial_settings(self.settings, overrides)
        self.cost(number, overrides)
        self.tracking.sender.log_params(self.runs[number], chosen.model_dump())

    def make_up(self) -> None:
        """Hand over what an earlier driver has not delivered.

        Parameters are those that a trial began with, as in a sweep that is not cut off.
        """
        for number in self.journal.proposed():
            self.begin(number, self.journal.first_overrides(number))
            history = own_epochs(trial_folder(self.folder, number))
            reported = [one for one in history if one["epoch"] <= self.journal.reported_epoch(number)]
            self.tracking.log_history(self.runs[number], reported)
            if entry := self.journal.ended().get(number):
                at_ms = reported[-1]["at_ms"] if reported else None
                self.tracking.sender.end(self.runs[number], MLFLOW_STATUS[entry.ended], at_ms)
        for entry in self.journal.entries:
            if entry.donor is not None:
                self.tell(entry)

    def tell(self, takeover: Entry) -> str:
        """Hand over, as a tag of the member's run, from whom it took over and with what; says the same."""
        changed = ", ".join(f"{key} {value}" for key, value in (takeover.overrides or {}).items())
        tag = {f"etude.took_over.{takeover.epoch}": f"{takeover.donor:03d}: {changed}"}
        self.tracking.sender.tag(self.runs[takeover.trial], tag)
        return f"trial {takeover.trial:03d} takes over from {takeover.donor:03d}, with {changed}"


def run_trials(going: Going, epochs: int) -> None:
    """Run every trial that has not ended to its end; `epochs` are the most that one may have."""
    population = going.sweep.population
    if population is None:
        asha = OrderedAsha(going.journal, going.sweep.asha, max_epochs=epochs, metric=SCORE)
        going.make_up()  # after the scheduler, which settles at once what a killed driver had not
        _tune(going, asha)
        return
    going.make_up()
    *ends, _ = generation_ends(population.every_epochs, epochs)
    for end in ends:
        _tune(going, Journaled(going.journal, metric=SCORE, until=end), until=end)
        _exploit(going, end)
    _tune(going, Journaled(going.journal, metric=SCORE))


def _exploit(going: Going, end: int) -> None:
    """Let the worst take over from the best after epoch `end`, but for those that did so before a kill.

    Nobody trains meanwhile, so a takeover that was cut off half-way finds the same checkpoints again.
    """
    journal, population = going.journal, going.sweep.population
    assert population is not None
    done = {entry.trial for entry in journal.entries if entry.donor is not None and entry.epoch == end}
    for one in takeovers(journal, end, going.sweep.space, population, going.seed):
        if one.member in done:
            continue
        trial_settings(going.settings, one.overrides)
        take_over(trial_folder(going.folder, one.donor), trial_folder(going.folder, one.member), end)
        journal.append(one.entry(end))
        going.say(f"after epoch {end} {going.tell(one.entry(end))}")


def _tune(going: Going, scheduler: Journaled, until: int | None = None) -> None:
    sweep = going.sweep
    proposer = Proposer(going.journal, going.search, going.total, going.begin, until)
    if not proposer.n_left:
        return
    alone = sweep.workers == 1
    need = {"CPU": sweep.cpus_per_trial, "GPU": sweep.gpus_per_trial}
    if alone:
        trainable = tune.with_parameters(run_trial, base=going.settings, sweep=going.folder, until=until)
    else:
        trainable = tune.with_parameters(
            run_trial_on_workers, base=going.settings, sweep=going.folder, workers=sweep.group, until=until
        )
    takes = {name: amount for name, amount in need.items() if amount} if alone else _of_a_driver()
    follow = Follow(
        going.journal, going.tracking.sender, going.runs, going.settings.judged_by, going.say, going.total,
    )  # fmt: skip
    filesystem, path = going.folder.arrow()
    tuner = tune.Tuner(
        tune.with_resources(trainable, takes),
        tune_config=tune.TuneConfig(
            search_alg=proposer,
            scheduler=scheduler,
            num_samples=proposer.n_left,
            max_concurrent_trials=concurrency(need, sweep.workers, sweep.concurrent),
            reuse_actors=alone,
            trial_dirname_creator=lambda trial: f"{trial.config['trial']:03d}-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=tune.FailureConfig(max_failures=sweep.max_failures),
            callbacks=[follow],
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except tune.TuneError as error:
        if fault := going.journal.fault or follow.fault:
            raise fault from error
        raise


def _of_a_driver() -> dict[str, float]:
    """What a process takes that only waits for a trial's workers: a place on the head, none of their CPUs."""
    if not times({DRIVER: 1}, nodes()):
        raise UserError(
            f"sweep.workers needs a head with the resource {DRIVER}: start it with "
            f"--resources '{{\"{DRIVER}\": 64}}', as `make up` and deploy/ do"
        )
    return {DRIVER: 1}
