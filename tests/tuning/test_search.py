"""What Tune is given next: first what was cut off, then what is new, and never more."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from etude.errors import UserError
from etude.tuning.journal import Entry, Journal
from etude.tuning.search import Listed, Proposer

LISTED = [{"seed": number} for number in range(4)]


def journal_of(path: Path) -> Journal:
    """Trial 0 is cut off after two epochs, trial 1 has ended, trial 2 has not begun."""
    journal = Journal(path / "journal.jsonl")
    for entry in (
        *(Entry(number, overrides=LISTED[number]) for number in range(3)),
        Entry(0, 1, 0.5), Entry(1, 1, 0.2), Entry(1, ended="stopped"), Entry(0, 2, 0.6),
    ):  # fmt: skip
        journal.append(entry)
    return journal


def test_trials_that_were_cut_off_come_first(tmp_path: Path) -> None:
    journal, begun = journal_of(tmp_path), []
    proposer = Proposer(journal, Listed(LISTED), 4, lambda number, _: begun.append(number))
    assert proposer.n_left == 3
    suggested = [proposer.suggest(str(n)) for n in range(4)]
    assert suggested == [
        {"trial": 0, "overrides": {"seed": 0}, "reported": 2},
        {"trial": 2, "overrides": {"seed": 2}, "reported": 0},
        {"trial": 3, "overrides": {"seed": 3}, "reported": 0},
        Searcher.FINISHED,
    ]
    assert begun == [3]
    assert Journal(tmp_path / "journal.jsonl").proposed() == [0, 1, 2, 3]


@pytest.mark.parametrize(("until", "left"), [(1, [2]), (2, [2]), (3, [0, 2]), (None, [0, 2])])
def test_who_has_come_to_the_end_of_a_generation_is_left_out(
    tmp_path: Path, until: int | None, left: list[int]
) -> None:
    proposer = Proposer(journal_of(tmp_path), Listed(LISTED), 3, lambda *_: None, until)
    found: list[Any] = [proposer.suggest(str(n)) for n in range(len(left))]
    assert [one["trial"] for one in found] == left
    assert proposer.n_left == 0


def test_a_trial_that_cannot_begin_is_not_written_down(tmp_path: Path) -> None:
    def begin(number: int, overrides: Mapping[str, Any]) -> None:
        raise UserError("it does not fit")

    journal = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(UserError, match="does not fit"):
        Proposer(journal, Listed(LISTED), 4, begin).suggest("a")
    assert not journal.entries
