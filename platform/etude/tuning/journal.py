"""What happened in a sweep, line by line, so that a killed driver goes on where it was.

Which trial comes next, which one is stopped, which one takes over from another: all that is decided in a
sweep is a function of these lines and the seed. They are the only state.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.storage.files import split


@dataclass(frozen=True)
class Entry:
    """A trial is proposed, reports an epoch, takes over from another, or ends."""

    trial: int
    epoch: int = 0
    score: float | None = None
    ended: str = ""  # stopped, finished or failed; empty while it goes on
    reason: str = ""  # of a failure
    overrides: dict[str, Any] | None = None  # its configuration, when it is proposed or takes over
    donor: int | None = None  # whose checkpoint and configuration it takes over after `epoch`


class Journal:
    """An append-only file of entries; a last line that was cut short is dropped when it is read."""

    def __init__(self, path: str | Path) -> None:
        """Raises UserError if a line before the last is no entry."""
        self._files, self._name = split(path)
        content = self._files.read(self._name) or b""
        whole, _, cut = content.rpartition(b"\n")
        self._torn = bool(cut)  # the file may end in a part of a line, which nothing must continue
        self.fault: OSError | None = None  # why the last entry could not be added
        self.entries: list[Entry] = []
        self._scores: dict[int, dict[int, float]] = {}
        self._best: dict[int, tuple[float, dict[str, Any]]] = {}  # with the overrides that led there
        self._ended: dict[int, Entry] = {}
        self._overrides: dict[int, dict[str, Any]] = {}
        self._first: dict[int, dict[str, Any]] = {}
        for entry in _read(whole, str(path)):
            self._note(entry)

    def append(self, entry: Entry) -> None:
        """Add an entry; it is where it stays when this returns."""
        torn, self._torn = self._torn, True  # until it is there whole: a disk may be full, an answer lost
        try:
            if torn:
                self._files.write(self._name, b"".join(map(_line, [*self.entries, entry])))
            else:
                self._files.append(self._name, _line(entry))
        except OSError as error:
            self.fault = error
            raise
        self._torn, self.fault = False, None
        self._note(entry)

    def proposed(self) -> list[int]:
        """Trials in the order in which they were proposed."""
        return list(self._overrides)

    def overrides(self, trial: int) -> dict[str, Any]:
        """A trial's overrides as they are now."""
        return self._overrides[trial]

    def first_overrides(self, trial: int) -> dict[str, Any]:
        """A trial's overrides when it was proposed."""
        return self._first[trial]

    def best_overrides(self, trial: int) -> dict[str, Any]:
        """The overrides with which the best score was reached, by this trial or by a donor."""
        return self._best[trial][1] if trial in self._best else self._overrides[trial]

    def ended(self) -> dict[int, Entry]:
        """Trials that are over, with how they ended."""
        return dict(self._ended)

    def reported_epoch(self, trial: int) -> int:
        """The last epoch that a trial reported, 0 if none."""
        return max(self._scores.get(trial, ()), default=0)

    def score(self, trial: int, epoch: int) -> float | None:
        """What a trial reported after an epoch, None if nothing."""
        return self._scores.get(trial, {}).get(epoch)

    def best(self, trial: int) -> float | None:
        """The best score of what a trial's checkpoints hold; one that is no number counts as none."""
        return self._best[trial][0] if trial in self._best else None

    def _note(self, entry: Entry) -> None:
        self.entries.append(entry)
        if entry.overrides is not None:
            self._overrides[entry.trial] = entry.overrides
            self._first.setdefault(entry.trial, entry.overrides)
        if entry.score is not None:
            self._scores.setdefault(entry.trial, {})[entry.epoch] = entry.score
            best = self.best(entry.trial)
            if not math.isnan(entry.score) and (best is None or entry.score > best):
                self._best[entry.trial] = (entry.score, self._overrides.get(entry.trial, {}))
        if entry.donor is not None:  # with the checkpoint goes all that it had reached
            self._best[entry.trial] = self._best[entry.donor]
        if entry.ended:
            self._ended[entry.trial] = entry


def _line(entry: Entry) -> bytes:
    told = {name: value for name, value in asdict(entry).items() if value != getattr(Entry, name, None)}
    return (json.dumps(told) + "\n").encode()


def _read(content: bytes, where: str) -> Iterator[Entry]:
    for number, line in enumerate(content.split(b"\n") if content else (), start=1):
        try:
            yield Entry(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise UserError(
                f"line {number} of the sweep's journal {where} is damaged, or of another version: mend it, "
                "or give the sweep another name"
            ) from error
