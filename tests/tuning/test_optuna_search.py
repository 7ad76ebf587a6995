"""Optuna proposes the same after any kill, within the space, and better as it goes."""

from pathlib import Path
from random import Random
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.errors import UserError
from etude.tuning.journal import Entry, Journal
from etude.tuning.optuna_search import OptunaSearch
from etude.tuning.space import Distribution

SPACE = {
    "student.width": Distribution(choice=[0.2, 0.4, 0.4]),
    "training.reset": Distribution(choice=[[], ["optimizer"], {"a": None}]),
    "training.learning_rate": Distribution(loguniform=(1e-4, 1e-2)),
    "student.dropout": Distribution(uniform=(0.0, 0.5)),
    "training.warmup_epochs": Distribution(quniform=(0.0, 2.0, 0.5)),
    "sampling.segments_per_track": Distribution(randint=(1, 4)),
}
TRIALS = 12


def search() -> OptunaSearch:
    return OptunaSearch(SPACE, TRIALS, (3, 1))


def an_event(journal: Journal, searching: OptunaSearch, random: Random) -> dict[str, Any] | None:
    """Something happens in a sweep with up to three trials at a time; what is proposed, if it is that."""
    going = [number for number in journal.proposed() if number not in journal.ended()]
    if len(going) < 3 and (not going or random.random() < 0.3):
        overrides = searching.propose(journal)
        journal.append(Entry(len(journal.proposed()), overrides=overrides))
        return overrides
    number = random.choice(going)
    ended = random.choice(["", "", "", "stopped", "finished", "failed"])
    score = random.choice([random.random(), float("nan")])
    journal.append(
        Entry(number, ended=ended) if ended else Entry(number, journal.reported_epoch(number) + 1, score)
    )
    return None


@settings(max_examples=12)
@given(seed=st.integers(0, 2**31), cuts=st.lists(st.integers(0, 70), min_size=1, max_size=3))
def test_a_restarted_search_proposes_what_it_would_have_proposed(
    tmp_path_factory: pytest.TempPathFactory, seed: int, cuts: list[int]
) -> None:
    paths = [tmp_path_factory.mktemp("sweep") / "journal.jsonl" for _ in range(2)]
    journals = [Journal(path) for path in paths]
    whole, cut, random, other = search(), search(), Random(seed), Random(seed)
    for step in range(70):
        if step in cuts:
            cut, journals[1] = search(), Journal(paths[1])
        assert an_event(journals[0], whole, random) == an_event(journals[1], cut, other)
        if len(journals[0].proposed()) == TRIALS:
            break
    assert paths[0].read_text() == paths[1].read_text()


def test_proposals_are_of_the_space(tmp_path: Path) -> None:
    journal, searching = Journal(tmp_path / "journal.jsonl"), search()
    for number in range(TRIALS):
        drawn = searching.propose(journal)
        journal.append(Entry(number, overrides=drawn))
        journal.append(Entry(number, 1, drawn["student.dropout"]))
        journal.append(Entry(number, ended="finished"))
        assert drawn["student.width"] in (0.2, 0.4)
        assert drawn["training.reset"] in ([], ["optimizer"], {"a": None})
        assert 1e-4 <= drawn["training.learning_rate"] <= 1e-2
        assert 0 <= drawn["student.dropout"] <= 0.5
        assert drawn["training.warmup_epochs"] in (0.0, 0.5, 1.0, 1.5, 2.0)
        assert drawn["sampling.segments_per_track"] in (1, 2, 3)
        assert Journal(tmp_path / "journal.jsonl").overrides(number) == drawn


def test_later_proposals_lie_where_earlier_ones_did_well(tmp_path: Path) -> None:
    space, journal = {"x": Distribution(uniform=(0.0, 1.0))}, Journal(tmp_path / "journal.jsonl")
    searching = OptunaSearch(space, 30, (0, 1))
    for number in range(30):
        journal.append(Entry(number, overrides=searching.propose(journal)))
        x = journal.overrides(number)["x"]
        journal.append(Entry(number, 1, -abs(x - 0.8)))
        journal.append(Entry(number, ended="stopped" if x < 0.5 else "finished"))
    misses = [abs(journal.overrides(number)["x"] - 0.8) for number in range(30)]
    assert sum(misses[-10:]) < 0.5 * sum(misses[:10])


def test_how_a_trial_ended_is_told_as_it_was(tmp_path: Path) -> None:
    journal, searching = Journal(tmp_path / "journal.jsonl"), search()
    for number, (ended, score) in enumerate(
        [("finished", 0.7), ("stopped", 0.2), ("failed", 0.3), ("finished", float("nan"))]
    ):
        journal.append(Entry(number, overrides=searching.propose(journal)))
        journal.append(Entry(number, 4, score))
        journal.append(Entry(number, ended=ended))
    searching.propose(journal)
    told = searching._study.trials
    assert [trial.state.name for trial in told] == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "RUNNING"]
    assert told[0].value == 0.7
    assert told[1].intermediate_values == {4: 0.2}


def test_a_journal_of_another_search_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(Entry(0, overrides={"student.width": 0.3}))
    with pytest.raises(UserError, match=rf"another trial 000 than Optuna {optuna.__version__}"):
        search().propose(journal)
