"""What a sweep did is known again after a crash, and ASHA decides as if nothing had happened."""

from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.schedulers import ASHAScheduler

from etude.tuning.journal import Entry, Journal
from etude.tuning.scheduler import AshaConfig, JournaledAsha

CONFIG = AshaConfig(grace_epochs=1, reduction_factor=2)


def ray_trial(number: int, tune_id: str) -> SimpleNamespace:
    """As much of a Tune trial as a scheduler sees; Tune gives a restarted one another id."""
    return SimpleNamespace(trial_id=tune_id, config={"trial": number})


def asha(journal: Journal) -> JournaledAsha:
    return JournaledAsha(journal, CONFIG, max_epochs=8, metric="score")


def test_entries_survive_and_a_cut_line_does_not(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    entries = [Entry(0, 1, 0.5), Entry(1, 1, 0.25, ended="stopped"), Entry(0, 2, 0.75)]
    for entry in entries:
        journal.append(entry)
    path.write_text(path.read_text() + '{"trial": 7, "epo')
    again = Journal(path)
    assert again.entries == entries
    again.append(Entry(0, ended="finished"))
    third = Journal(path)
    assert set(third.ended()) == {0, 1}
    assert third.reported_epoch(0) == 2
    assert third.best(0) == 0.75
    assert third.best(9) is None


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.lists(st.floats(-1, 1), min_size=8, max_size=8), min_size=2, max_size=6),
    cut=st.integers(0, 60),
    order=st.randoms(use_true_random=False),
)
def test_a_restarted_driver_stops_the_same_trials(
    tmp_path_factory: pytest.TempPathFactory, scores: list[list[float]], cut: int, order: Random
) -> None:
    """Any order of reports, cut anywhere: rungs rebuilt from the journal decide as Ray's own ASHA would."""
    folder = tmp_path_factory.mktemp("sweep")
    whole = ASHAScheduler(
        time_attr="epoch", metric="score", mode="max", max_t=8, grace_period=1, reduction_factor=2,
        stop_last_trials=False,
    )  # fmt: skip
    scheduler = asha(Journal(folder / "journal.jsonl"))
    for number in range(len(scores)):
        whole.on_trial_add(None, ray_trial(number, f"w{number}"))
        scheduler.on_trial_add(None, ray_trial(number, f"first-{number}"))
    epochs = dict.fromkeys(range(len(scores)), 0)
    reports = 0
    while epochs:
        number = order.choice(sorted(epochs))
        epochs[number] += 1
        result = {"epoch": epochs[number], "score": scores[number][epochs[number] - 1]}
        if reports == cut:
            scheduler = asha(Journal(folder / "journal.jsonl"))
            for left in epochs:
                scheduler.on_trial_add(None, ray_trial(left, f"second-{left}"))
        reports += 1
        prefix = "second" if reports > cut else "first"
        decision = scheduler.on_trial_result(None, ray_trial(number, f"{prefix}-{number}"), dict(result))
        expected = whole.on_trial_result(None, ray_trial(number, f"w{number}"), dict(result))
        assert decision == ("CONTINUE" if epochs[number] == 8 else expected)
        if decision == "STOP" or epochs[number] == 8:
            del epochs[number]


def test_reading_a_journal_never_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).append(Entry(0, 1, 0.5))
    cut = path.read_text() + '{"trial": 1, "ep'
    path.write_text(cut)
    assert len(Journal(path).entries) == 1
    assert path.read_text() == cut


def test_a_restarted_trial_is_heard_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    scheduler = asha(journal)
    for tune_id in ("first", "again"):
        scheduler.on_trial_add(None, ray_trial(0, tune_id))
        for epoch in (1, 2):
            scheduler.on_trial_result(None, ray_trial(0, tune_id), {"epoch": epoch, "score": 0.5})
    assert [entry.epoch for entry in journal.entries] == [1, 2]
