"""What a sweep did is known again after a crash."""

import math
from pathlib import Path

from etude.tuning.journal import Entry, Journal


def test_entries_survive_and_a_cut_line_does_not(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    entries = [
        Entry(0, overrides={"seed": 1}), Entry(1, overrides={}), Entry(0, 1, 0.5), Entry(1, 1, 0.25),
        Entry(1, ended="stopped"), Entry(0, 2, 0.75), Entry(0, 3, math.inf),
    ]  # fmt: skip
    for entry in entries:
        journal.append(entry)
    path.write_text(path.read_text() + '{"trial": 7, "epo')
    again = Journal(path)
    assert again.entries == entries
    again.append(Entry(0, ended="finished"))
    third = Journal(path)
    assert set(third.ended()) == {0, 1}
    assert third.proposed() == [0, 1]
    assert third.overrides(0) == {"seed": 1}
    assert third.reported_epoch(0) == 3
    assert third.score(0, 2) == 0.75
    assert third.best(1) == 0.25
    assert third.best(9) is None


def test_reading_a_journal_never_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).append(Entry(0, 1, 0.5))
    cut = path.read_text() + '{"trial": 1, "ep'
    path.write_text(cut)
    assert len(Journal(path).entries) == 1
    assert path.read_text() == cut


def test_who_takes_over_has_the_best_of_its_donor(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for entry in (
        Entry(0, overrides={"seed": 0}), Entry(1, overrides={"seed": 1}), Entry(0, 1, 0.9), Entry(1, 1, 0.4),
        Entry(0, 2, 0.2), Entry(1, 2, 0.6), Entry(0, 2, overrides={"seed": 2}, donor=1),
        Entry(0, 3, math.nan),
    ):  # fmt: skip
        journal.append(entry)
    assert (journal.best(0), journal.best(1)) == (0.6, 0.6)
    assert journal.overrides(0) == {"seed": 2}
    assert journal.proposed() == [0, 1]
    assert journal.reported_epoch(0) == 3
