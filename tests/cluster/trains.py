"""Train a tiny student on made-up features below a folder; another program fills that disk on the way.

    python -m tests.cluster.trains FOLDER [EPOCH]

fills it once so many epochs are done, and prints the loss of every epoch of the run as JSON.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from etude.cli import guarded
from etude.training.checkpoint import load_latest
from tests.cluster.disk import fill
from tests.support.library import made_up_splits
from tests.training.test_loop import CONFIG, IDENTITY, library, system, train


def main(argv: list[str]) -> int:
    root, fill_after = Path(argv[0]), int(argv[1]) if len(argv) > 1 else None
    data = library(made_up_splits(root / "store"))

    def report(metrics: Mapping[str, float], checkpoint: Path) -> None:
        if metrics["epoch"] == fill_after:
            fill(root)

    train(
        system(), data, CONFIG, seed=3, folder=root / "run", report=report, identity=IDENTITY,
        configuration={"student": {"name": "convnet"}},
    )  # fmt: skip
    state = load_latest(root / "run")
    assert state is not None
    print(json.dumps([epoch["train/loss"] for epoch in state["history"]]))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
