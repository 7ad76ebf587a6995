"""Write shards and die at every step of it, each time in a process of its own.

    python -m tests.cluster.dies STORE

prints a line of JSON for every step and kind of write: where the process was killed, and by which signal.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from etude.data.store import Store

PART = "features/r"
# Of a shard and then of its commit record: written, flushed, renamed.
STEPS = [
    (what, when, call) for call in (1, 2) for what in ("fsync", "replace") for when in ("before", "after")
]


def shard(first: int, value: int) -> pa.Table:
    """Three tracks whose every row holds `value`."""
    return pa.table({"track_id": [f"t{first + i}" for i in range(3)], "value": [value] * 3})


def dying(function: Callable[..., Any], when: str, call: int) -> Callable[..., Any]:
    """The function, but the process is killed before or after its nth call."""
    calls = 0

    def run(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return run


def main(root: str) -> None:
    for number, (what, when, call) in enumerate(STEPS):
        for kind, first, value in (("new", 1000 + 10 * number, number), ("old", 10 * number, 1000 + number)):
            child = os.fork()
            if not child:
                setattr(os, what, dying(getattr(os, what), when, call))
                Store(root).write_shard(PART, shard(first, value))
                os._exit(0)
            _, status = os.waitpid(child, 0)
            killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
            told = {"what": what, "when": when, "call": call, "kind": kind, "killed_by": killed_by}
            print(json.dumps(told | {"first": first, "value": value}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
