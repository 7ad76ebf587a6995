"""Whoever reports first and whenever the driver dies, ASHA stops whom it would stop one after another."""

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler

from etude.storage.folder import Folder
from etude.tuning.follow import Follow
from etude.tuning.journal import Entry, Journal
from etude.tuning.run import run_trials
from etude.tuning.scheduler import AshaConfig, Journaled, OrderedAsha

EPOCHS = 9
CONFIG = AshaConfig(grace_epochs=1, reduction_factor=2)


def one_after_another(scores: list[list[float]]) -> dict[int, tuple[str, int]]:
    """How trials end, and after which epoch, under Ray's own ASHA if only one runs at a time."""
    asha = ASHAScheduler(
        time_attr="epoch", metric="score", mode="max", max_t=EPOCHS, grace_period=1, reduction_factor=2,
        stop_last_trials=False,
    )  # fmt: skip
    ended = {}
    for number, curve in enumerate(scores):
        trial = SimpleNamespace(trial_id=str(number))
        asha.on_trial_add(None, trial)
        for epoch, score in enumerate(curve, 1):
            decision = asha.on_trial_result(None, trial, {"epoch": epoch, "score": score})
            if decision == "STOP" and epoch < EPOCHS:
                break
        ended[number] = ("stopped" if decision == "STOP" and epoch < EPOCHS else "finished", epoch)
    return ended


@dataclass
class FakeTune:
    """As much of Tune as a scheduler sees: trials in any order, at most `at_once` that have not ended."""

    path: Path
    scores: list[list[float]]
    at_once: int
    order: Random
    trials: dict[int, Any] = field(default_factory=dict)
    pauses: int = 0

    def start(self) -> None:
        """A driver begins, the first one or another after a kill."""
        self.journal = Journal(self.path)
        self.scheduler = OrderedAsha(self.journal, CONFIG, max_epochs=EPOCHS, metric="score")
        self.trials = {}
        for number in self.journal.proposed():
            if number not in self.journal.ended():
                self._add(number)

    def get_trials(self) -> list[Any]:
        return list(self.trials.values())

    def stop_trial(self, trial: Any) -> None:
        assert trial.status == Trial.PAUSED
        del self.trials[trial.config["trial"]]

    def step(self) -> None:
        chosen = self.scheduler.choose_trial_to_run(self)
        if chosen:
            chosen.status = Trial.RUNNING
            self._resume(chosen)
        number = len(self.journal.proposed())
        if len(self.trials) < self.at_once and number < len(self.scores):
            self.journal.append(Entry(number, overrides={}))
            self._add(number)
        running = [trial for trial in self.trials.values() if trial.status == Trial.RUNNING]
        if running:
            self._report(self.order.choice(running))

    def _add(self, number: int) -> None:
        self.trials[number] = SimpleNamespace(
            config={"trial": number}, status=Trial.RUNNING, trial_id=f"{number}-{self.order.random()}"
        )
        self._resume(self.trials[number])
        self.scheduler.on_trial_add(self, self.trials[number])

    def _resume(self, trial: Any) -> None:
        """As run_trial does, the last epoch that was heard is told again."""
        trial.epoch = max(0, self.journal.reported_epoch(trial.config["trial"]) - 1)

    def _report(self, trial: Any) -> None:
        number = trial.config["trial"]
        trial.epoch += 1
        result = {"epoch": trial.epoch, "score": self.scores[number][trial.epoch - 1]}
        decision = self.scheduler.on_trial_result(self, trial, result)
        if decision == "PAUSE":
            trial.status = Trial.PAUSED
            self.pauses += 1
        elif decision == "STOP" or trial.epoch == EPOCHS:
            self.scheduler.on_trial_complete(self, trial, result)
            del self.trials[number]


@settings(max_examples=150)
@given(
    scores=st.lists(
        st.lists(st.floats(-1, 1) | st.just(float("nan")), min_size=EPOCHS, max_size=EPOCHS),
        min_size=2, max_size=7,
    ),
    at_once=st.integers(1, 4),
    kills=st.lists(st.integers(0, 80), max_size=3),
    order=st.randoms(use_true_random=False),
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:All-NaN slice encountered")
def test_the_same_trials_are_stopped_in_any_order_and_after_any_kill(
    tmp_path_factory: pytest.TempPathFactory,
    scores: list[list[float]],
    at_once: int,
    kills: list[int],
    order: Random,
) -> None:
    tune = FakeTune(tmp_path_factory.mktemp("sweep") / "journal.jsonl", scores, at_once, order)
    tune.start()
    for step in range(2_000):
        if len(tune.journal.ended()) == len(scores):
            break
        if step in kills:
            tune.start()
        tune.step()
    ended = tune.journal.ended()
    found = {n: (entry.ended, tune.journal.reported_epoch(n)) for n, entry in sorted(ended.items())}
    assert found == one_after_another(scores)
    heard = [(entry.trial, entry.epoch) for entry in tune.journal.entries if entry.score is not None]
    assert len(heard) == len(set(heard))
    assert at_once > 1 or not tune.pauses


def test_a_trial_that_comes_first_waits_for_lower_numbers(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(Entry(0, overrides={}))
    journal.append(Entry(1, overrides={}))
    asha = OrderedAsha(journal, CONFIG, max_epochs=EPOCHS, metric="score")
    first, second = (SimpleNamespace(config={"trial": n}, status=Trial.RUNNING) for n in (0, 1))
    controller = SimpleNamespace(get_trials=lambda: [first, second])
    assert asha.on_trial_result(controller, second, {"epoch": 1, "score": 0.5}) == "PAUSE"
    second.status = Trial.PAUSED
    assert asha.choose_trial_to_run(controller) is None
    assert asha.on_trial_result(controller, first, {"epoch": 1, "score": 0.4}) == "CONTINUE"
    assert asha.choose_trial_to_run(controller) is second


def test_a_lower_number_that_fails_is_waited_for_no_longer(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for entry in (Entry(0, overrides={}), Entry(1, overrides={}), Entry(1, 1, 0.5)):
        journal.append(entry)
    asha = OrderedAsha(journal, CONFIG, max_epochs=EPOCHS, metric="score")
    waiting = SimpleNamespace(config={"trial": 1}, status=Trial.PAUSED)
    controller = SimpleNamespace(get_trials=lambda: [waiting])
    assert asha.choose_trial_to_run(controller) is None
    journal.append(Entry(0, ended="failed", reason="lost"))
    assert asha.choose_trial_to_run(controller) is waiting


def test_a_generation_ends_without_ending_its_trials(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    scheduler = Journaled(journal, metric="score", until=2)
    goes_on, patient = (SimpleNamespace(config={"trial": n}) for n in (0, 1))
    for trial, epochs in ((goes_on, (1, 1, 2)), (patient, (1,))):
        for epoch in epochs:
            assert scheduler.on_trial_result(None, trial, {"epoch": epoch, "score": 0.5}) == "CONTINUE"
        scheduler.on_trial_complete(None, trial, {})
    assert [(entry.trial, entry.epoch) for entry in journal.entries] == [(0, 1), (0, 2), (1, 1), (1, 0)]
    assert set(journal.ended()) == {1}


def test_mlflow_hears_of_a_trial_that_is_stopped_as_a_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its driver was killed between a report and what comes of it."""
    journal = Journal(tmp_path / "journal.jsonl")
    for entry in (
        Entry(0, overrides={}), Entry(1, overrides={}), Entry(0, 1, 0.5), Entry(1, 1, 0.25),
    ):  # fmt: skip
        journal.append(entry)
    told: list[dict[int, Entry]] = []
    going: Any = SimpleNamespace(
        journal=journal,
        sweep=SimpleNamespace(population=None, asha=CONFIG),
        make_up=lambda: told.append(journal.ended()),
    )
    monkeypatch.setattr("etude.tuning.run._tune", lambda *args: None)
    run_trials(going, EPOCHS)
    assert told == [{1: Entry(1, ended="stopped")}]


def test_a_trial_that_is_lost_after_it_was_stopped_ended_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for entry in (Entry(0, overrides={}), Entry(0, 1, 0.5), Entry(0, ended="stopped")):
        journal.append(entry)
    ends: list[tuple[str, str]] = []
    sender: Any = SimpleNamespace(end=lambda run_id, status: ends.append((run_id, status)))
    follow = Follow(journal, sender, {0: "run"}, "skill", lambda line: None, 1)
    follow.on_trial_error(
        0, [], SimpleNamespace(config={"trial": 0}, error_file=None, pickled_error_file=None)
    )
    assert journal.ended() == {0: Entry(0, ended="stopped")}
    assert ends == [("run", "KILLED")]


def test_a_journal_that_cannot_be_written_is_no_trial_s_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune takes an error of the scheduler's for the trial's that it was told of."""
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(Entry(0, overrides={}))
    journal.append(Entry(0, 1, 0.5))
    trial: Any = SimpleNamespace(config={"trial": 0}, error_file=None, pickled_error_file=None)

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "append", full)
        with pytest.raises(OSError, match="No space left"):
            Journaled(journal, metric="score").on_trial_complete(None, trial, {})
    follow = Follow(journal, SimpleNamespace(), {0: "run"}, "skill", print, 1)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="No space left"):
        follow.on_trial_error(0, [], trial)
    assert not Journal(tmp_path / "journal.jsonl").ended()
