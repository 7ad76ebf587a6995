"""What a language model's captions have cost, and its answers: one SQLite file for each set of captions.

Before a request, the most that it can cost is written down; afterwards, what it did cost, with its answer. A
run that is killed leaves the higher figure, since its request may have been billed, and no answer is lost.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from etude.errors import UserError

WAIT_S = 60.0  # for another process that uses the same file
ROUNDING_USD = 1e-12  # sums of many small figures


class OverBudget(Exception):  # noqa: N818
    """The next request could cost more than is left."""


@dataclass(frozen=True)
class Answers:
    """What was answered for one track so far."""

    captions: tuple[str, ...] = ()
    tokens_in: int = 0
    tokens_out: int = 0


class Ledger:
    """The costs and answers in one file; many processes may use it at a time and share the budget."""

    def __init__(self, path: Path, budget_usd: float) -> None:
        """Raises UserError if the file cannot be used."""
        self.path = path
        self.budget_usd = budget_usd
        self.elsewhere_usd = (
            0.0  # spent on what this file does not know, such as captions made on another machine
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot keep the costs of captions in {path}: {error.strerror}") from error
        with self._database() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS answers (usd REAL NOT NULL, track TEXT, facts TEXT, "
                "captions TEXT, tokens_in INTEGER, tokens_out INTEGER)"
            )
            database.execute("CREATE INDEX IF NOT EXISTS by_track ON answers (track, facts)")

    @property
    def spent_usd(self) -> float:
        """What was spent by all runs, with the most that requests under way may cost."""
        with self._database() as database:
            return self._sum(database)

    def tracks(self) -> set[str]:
        """Ids of the tracks that have answers here."""
        with self._database() as database:
            rows = database.execute("SELECT DISTINCT track FROM answers WHERE track IS NOT NULL")
            return {track for (track,) in rows}

    def answers(self, track_id: str, facts: str) -> Answers:
        """What was answered for a track with these facts, a hash."""
        query = (
            "SELECT captions, tokens_in, tokens_out FROM answers WHERE track = ? AND facts = ? ORDER BY rowid"
        )
        with self._database() as database:
            rows = database.execute(query, (track_id, facts)).fetchall()
        captions = tuple(caption for row in rows for caption in json.loads(row[0]))
        return Answers(captions, sum(row[1] for row in rows), sum(row[2] for row in rows))

    def reserve(self, usd: float) -> int | None:
        """Write down the most that a request can cost; None if it does not fit into the budget."""
        with self._database() as database:
            database.execute("BEGIN IMMEDIATE")  # nobody else reserves between sum and entry
            if self._sum(database) + usd > self.budget_usd + ROUNDING_USD:
                return None
            return database.execute("INSERT INTO answers (usd) VALUES (?)", (usd,)).lastrowid

    def settle(self, entry: int, usd: float, track_id: str, facts: str, answers: Answers) -> None:
        """Replace a reservation by what the answer did cost, and keep the answer."""
        row = (
            usd,
            track_id,
            facts,
            json.dumps(answers.captions),
            answers.tokens_in,
            answers.tokens_out,
            entry,
        )
        with self._database() as database:
            database.execute(
                "UPDATE answers SET usd = ?, track = ?, facts = ?, captions = ?, tokens_in = ?, "
                "tokens_out = ? WHERE rowid = ?",
                row,
            )

    def free(self, entry: int) -> None:
        """Take back a reservation: nothing was billed."""
        with self._database() as database:
            database.execute("DELETE FROM answers WHERE rowid = ?", (entry,))

    def _sum(self, database: sqlite3.Connection) -> float:
        total: float = database.execute("SELECT total(usd) FROM answers").fetchone()[0]
        return total + self.elsewhere_usd

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=WAIT_S)) as database, database:
                yield database
        except sqlite3.Error as error:
            raise UserError(f"cannot use {self.path}, where costs of captions are kept: {error}") from error
