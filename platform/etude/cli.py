"""What all commands share: one sentence for an error, plain progress lines, human numbers."""

import logging
import sys
import time
from collections.abc import Callable
from functools import wraps

from etude.config import mask
from etude.errors import UserError, is_disk_full


def guarded(main: Callable[[list[str]], int]) -> Callable[[list[str]], int]:
    """Turn the errors that a user can mend into one sentence and exit code 2, Ctrl-C into 130."""

    @wraps(main)
    def run(argv: list[str]) -> int:
        logging.basicConfig(format="%(message)s", level=logging.WARNING)
        try:
            return main(argv)
        except UserError as error:
            print(f"etude: {mask(str(error))}", file=sys.stderr)
            return 2
        except OSError as error:
            if not is_disk_full(error):
                raise
            print(
                f"etude: the disk is full ({error}): make room and run the same command again",
                file=sys.stderr,
            )
            return 2
        except KeyboardInterrupt:
            print("etude: stopped; the same command continues where this one was", file=sys.stderr)
            return 130

    return run


class Progress:
    """A line now and then with rate and remaining time; on a terminal the line replaces itself."""

    def __init__(self, what: str, every_s: float = 5.0) -> None:
        self._what = what
        self._terminal = sys.stderr.isatty()
        self._every_s = 0.2 if self._terminal else every_s
        self._started = time.monotonic()
        self._last = -1e9

    def __call__(self, done: int, total: int, audio_s: float | None = None) -> None:
        """Show that `done` of `total` tracks are finished, with so much audio if they were heard."""
        now = time.monotonic()
        if total == 0 or (done < total and now - self._last < self._every_s):
            return
        self._last = now
        elapsed = max(now - self._started, 1e-6)
        line = f"{self._what} {done}/{total}"
        if done:
            line += f"  {done / elapsed:.1f} tracks/s"
            line += f", {audio_s / elapsed:.0f} x real time" if audio_s is not None else ""
            line += (
                f", {duration(elapsed / done * (total - done))} left"
                if done < total
                else f", {duration(elapsed)}"
            )
        end = "\n" if done == total or not self._terminal else ""
        print(f"\r\033[K{line}" if self._terminal else line, end=end, file=sys.stderr, flush=True)


def say(line: str) -> None:
    """Print at once, so that a job's log is in order."""
    print(line, flush=True)


def duration(seconds: float) -> str:
    """`75` becomes `1 min 15 s`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
