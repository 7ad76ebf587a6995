"""A line an epoch for whoever waits while other processes train."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from etude.cli import duration
from etude.errors import UserError
from etude.storage.files import Files, Place
from etude.training.checkpoint import load_latest, newest_first
from etude.training.loop import SCORE

LOOK_S = 2.0


@contextmanager
def watched(
    folder: Place, name: str, epochs: int, judged_by: str, say: Callable[[str], None]
) -> Iterator[None]:
    """While the block runs, say of every epoch that a checkpoint in `folder` tells of how it went."""
    done, files = threading.Event(), Files(folder)
    seen = _epoch(files)

    def look() -> None:
        nonlocal seen
        while True:
            over = done.wait(LOOK_S)
            with suppress(UserError):  # out of reach now: the next look tells, or those who train do
                if _epoch(files) > seen and (state := load_latest(files)):
                    seen, last = state["epoch"], state["history"][-1]
                    left_s = last["seconds"] * (epochs - seen)
                    say(
                        f"{name}: epoch {seen}/{epochs}  loss {last['train/loss']:.4f}, "
                        f"validation {judged_by} {last[SCORE]:.3f} (best {state['best']:.3f})"
                        + (f", {duration(left_s)} left" * (left_s > 0))
                    )
            if over:
                return

    watcher = threading.Thread(target=look, name="watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _epoch(files: Files) -> int:
    """The last epoch that has a checkpoint, 0 if none has."""
    return max((int(name[6:-3]) for name in newest_first(files)), default=0)
