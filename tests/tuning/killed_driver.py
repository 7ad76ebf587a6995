"""A sweep's driver in a process of its own, to be killed: python -m tests.tuning.killed_driver FILE."""

import pickle
import sys
from pathlib import Path

import ray

from etude.tracking.mlflow import Tracking
from etude.tuning.sweep import run_sweep

if __name__ == "__main__":
    settings, sweep, uri, address = pickle.loads(Path(sys.argv[1]).read_bytes())
    ray.init(address=address, log_to_driver=False)
    run_sweep(settings, sweep, Tracking(uri, "killed"), {}, print)
