"""Train as `tests.cluster.trains` does, and die while the checkpoint after an epoch is written.

    python -m tests.cluster.dies_checkpointing FOLDER EPOCH fsync|replace

is killed once the first of that epoch's files is flushed, or renamed.
"""

import os
import sys
from typing import Any

from etude.training import loop
from tests.cluster import trains
from tests.cluster.dies import dying

if __name__ == "__main__":
    folder, last, what = sys.argv[1:]
    save = loop.save_checkpoint

    def save_and_die(files: Any, epoch: int, *arguments: Any, **named: Any) -> str:
        if epoch == int(last):
            setattr(os, what, dying(getattr(os, what), "after", 1))
        return save(files, epoch, *arguments, **named)

    loop.save_checkpoint = save_and_die
    trains.main([folder])
