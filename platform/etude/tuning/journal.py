"""What happened in a sweep, line by line, so that a killed driver goes on where it was."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from etude.storage.files import split


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

    def __init__(self, path: str | Path) -> None:
        self._files, self._name = split(path)
        content = self._files.read(self._name) or b""
        whole, _, self._cut = content.rpartition(b"\n")
        self.entries: list[Entry] = list(_read(whole))

    def append(self, entry: Entry) -> None:
        """Add an entry; it is where it stays when this returns."""
        self.entries.append(entry)
        line = (json.dumps(asdict(entry)) + "\n").encode()
        if self._cut:  # what is appended must not continue a line that a crash cut short
            content = self._files.read(self._name) or b""
            self._files.write(self._name, content.removesuffix(self._cut) + line)
            self._cut = b""
        else:
            self._files.append(self._name, line)

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


def _read(content: bytes) -> Iterator[Entry]:
    for line in content.splitlines():
        try:
            yield Entry(**json.loads(line))
        except json.JSONDecodeError:
            return
