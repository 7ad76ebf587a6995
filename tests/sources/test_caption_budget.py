from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from etude.errors import UserError
from etude.sources.caption_budget import Answers, Ledger


def test_a_reservation_becomes_what_the_answer_cost_and_the_answer_is_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "new" / "ledger.sqlite", 1.0)
    entry = ledger.reserve(0.8)
    assert entry is not None
    assert ledger.reserve(0.3) is None
    ledger.settle(entry, 0.1, "t1", "facts", Answers(("One caption", "Another"), 10, 20))
    more = ledger.reserve(0.9)
    assert more is not None
    ledger.settle(more, 0.2, "t1", "facts", Answers(("A third",), 1, 2))
    again = Ledger(ledger.path, 1.0)
    assert again.spent_usd == pytest.approx(0.3)
    assert again.answers("t1", "facts") == Answers(("One caption", "Another", "A third"), 11, 22)
    assert again.answers("t1", "other facts") == Answers()
    assert again.tracks() == {"t1"}


def test_what_was_not_billed_is_given_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite", 1.0)
    entry = ledger.reserve(1.0)
    assert entry is not None
    ledger.free(entry)
    assert ledger.spent_usd == 0
    assert ledger.reserve(1.0) is not None


def test_those_who_share_a_file_share_the_budget(tmp_path: Path) -> None:
    ledgers = [Ledger(tmp_path / "ledger.sqlite", 1.0) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        entries = list(pool.map(lambda i: ledgers[i % 4].reserve(0.1), range(24)))
    assert sum(entry is not None for entry in entries) == 10
    elsewhere = ledgers[0]
    elsewhere.budget_usd, elsewhere.elsewhere_usd = 1.5, 0.45
    assert elsewhere.reserve(0.1) is None


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no database, but long enough to be taken for one" * 10)
    with pytest.raises(UserError, match="file"):
        Ledger(tmp_path / "file", 1.0)
    with pytest.raises(UserError, match="ledger"):
        Ledger(tmp_path / "file" / "ledger.sqlite", 1.0)
