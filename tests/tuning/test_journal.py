"""What a sweep did is known again after a crash."""

import errno
import math
import os
from pathlib import Path

import pytest

from etude.errors import UserError
from etude.storage.folder import Folder
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


@pytest.mark.parametrize("kept", [0, 9, 1000])
def test_an_append_that_fails_half_way_costs_no_other_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """A full disk takes a part of a line; an object store may have taken all of it."""
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(Entry(0, overrides={"seed": 1}))

    def full(folder: Folder, path: str, data: bytes) -> None:
        with open(folder.file(path), "ab") as file:
            file.write(data[:kept])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "append", full)
        with pytest.raises(OSError, match="No space left"):
            journal.append(Entry(0, 1, 0.5))
    later = [Entry(0, 1, 0.5), Entry(0, 2, 0.75), Entry(0, ended="finished")]
    for entry in later:
        journal.append(entry)
    assert Journal(tmp_path / "journal.jsonl").entries == [Entry(0, overrides={"seed": 1}), *later]


@pytest.mark.parametrize(
    "line", ['{"trial": 0, "epo{"trial": 1}', "[]", '{"trial": 0, "lap": 1}', "\0\0", ""]
)
def test_a_damaged_line_hides_no_later_one(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(f'{{"trial": 0, "overrides": {{}}}}\n{line}\n{{"trial": 0, "ended": "finished"}}\n')
    with pytest.raises(UserError, match=r"line 2 of the sweep's journal .+journal.jsonl is damaged"):
        Journal(path)


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
    assert (journal.overrides(0), journal.first_overrides(0)) == ({"seed": 2}, {"seed": 0})
    assert journal.best_overrides(0) == {"seed": 1}  # its best checkpoint is its donor's, and learned so
    assert journal.proposed() == [0, 1]
    assert journal.reported_epoch(0) == 3
    journal.append(Entry(0, 4, 0.7))
    assert (journal.best(0), journal.best_overrides(0)) == (0.7, {"seed": 2})
