"""What happened in a sweep, line by line, so that a killed driver goes on where it was."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True)
class Entry:
    """One report of a trial, or its end."""

    trial: int
    epoch: int = 0
    score: float | None = None
    ended: str = ""  # stopped, finished or failed; empty while it goes on
    reason: str = ""  # of a failure


class Journal:
    """An append-only file of entries; a line cut short by a crash is dropped when it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries: list[Entry] = list(_read(path))

    def append(self, entry: Entry) -> None:
        """Add an entry; it is on disk when this returns."""
        self.entries.append(entry)
        with open(self._path, "ab+") as file:
            _drop_cut_line(file)
            file.write((json.dumps(asdict(entry)) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())

    def ended(self) -> dict[int, Entry]:
        """Trials that are over, with how they ended."""
        return {entry.trial: entry for entry in self.entries if entry.ended}

    def reported_epoch(self, trial: int) -> int:
        """The last epoch that a trial reported, 0 if none."""
        return max((entry.epoch for entry in self.entries if entry.trial == trial), default=0)

    def best(self, trial: int) -> float | None:
        """A trial's best score; one that is no number counts as none."""
        known = [e.score for e in self.entries if e.trial == trial and e.score is not None]
        scores = [score for score in known if not math.isnan(score)]
        return max(scores, default=None)


def _read(path: Path) -> Iterator[Entry]:
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            yield Entry(**json.loads(line))
        except json.JSONDecodeError:
            return


def _drop_cut_line(file: BinaryIO) -> None:
    """What is appended must not continue a line that a crash cut short."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return
    file.seek(max(0, size - 65_536))
    tail = file.read()
    if not tail.endswith(b"\n"):
        file.truncate(size - len(tail) + tail.rfind(b"\n") + 1)
