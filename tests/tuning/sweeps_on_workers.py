"""A sweep whose trials have so many workers each, on a Ray of its own; prints what became of it as JSON.

python -m tests.tuning.sweeps_on_workers HOME MLFLOW_URI WORKERS
"""

import json
import sys
import time
from pathlib import Path

import ray
from ray.util import placement_group_table

from etude.services.session import connect
from etude.tracking.mlflow import Tracking
from etude.training.checkpoint import load_latest
from etude.tuning.scheduler import AshaConfig
from etude.tuning.sweep import run_sweep, trial_folder
from etude.tuning.trial import SweepConfig
from tests.support.emotion import synthetic_experiment

WORDS = (
    "--model",
    "dynamics",
    "--student.dropout",
    "0",
    "--training.epochs",
    "2",
    "--training.batch_size",
    "16",
)
RATES = [3e-3, 1e-3, 1e-6]


def main(home: Path, uri: str, workers: int) -> None:
    experiment = synthetic_experiment(home, *WORDS, n=60)
    connect(home)
    sweep = SweepConfig(
        name="pairs",
        cases={f"rate {rate}": {"training.learning_rate": rate} for rate in RATES},
        workers=workers,
        asha=AshaConfig(grace_epochs=1, reduction_factor=2),
        max_failures=0,
    )
    result = run_sweep(experiment, sweep, Tracking(uri, "pairs"), {}, lambda line: None)
    end = time.monotonic() + 200  # whoever cleans up after a stopped trial notices its end a little later
    while (left := _groups()) and time.monotonic() < end:
        time.sleep(1)
    state = load_latest(trial_folder(result.folder, result.winner.number))
    assert state is not None
    told = {
        "ended": {trial.number: trial.ended for trial in result.trials},
        "workers": [epoch["workers"] for epoch in state["history"]],
        "losses": [epoch["train/loss"] for epoch in state["history"]],
        "rate": result.winner.overrides["training.learning_rate"],
        "groups_there_were": len(placement_group_table()),
        "groups_left": left,
    }
    print(json.dumps(told))
    ray.shutdown()


def _groups() -> list[str]:
    table = placement_group_table()
    return [str(group["name"]) for group in table.values() if group["state"] != "REMOVED"]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
