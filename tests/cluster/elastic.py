"""Train an emotion model on as many of two workers as there are; prints losses and workers of every epoch.

python -m tests.cluster.elastic EXPERIMENT.json FOLDER MLFLOW_URI FEWEST
"""

import json
import sys
from pathlib import Path

import ray
from mlflow.tracking import MlflowClient

from etude.cli import guarded
from etude.storage.files import Files
from etude.tracking.mlflow import Tracking
from etude.training.checkpoint import load_latest
from etude.training.ray_train import WorkersConfig, train_on_workers
from etude.training.run import Run
from tests.support.mortal import Mortal


def main(argv: list[str]) -> int:
    experiment, folder, uri = Mortal(**json.loads(Path(argv[0]).read_text())), Path(argv[1]), argv[2]
    elastic = WorkersConfig(workers=2, min_workers=int(argv[3]))
    ray.init()
    tracking = Tracking(uri, "elastic")
    run = Run("elastic", experiment, Files(folder), tracking.run(str(folder), "elastic"))
    train_on_workers([run], elastic, tracking)
    state = load_latest(folder)
    assert state is not None
    workers = MlflowClient(uri).get_metric_history(run.run_id, "workers")
    told = {
        "losses": [epoch["train/loss"] for epoch in state["history"]],
        "workers": [point.value for point in sorted(workers, key=lambda point: point.step)],
    }
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
