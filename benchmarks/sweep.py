"""What a sweep costs beyond its trials: wall time against the ideal packing of the trials' own compute.

    python benchmarks/sweep.py [--trials 8] [--epochs 4]

The ideal is the least time in which the machine's slots could run the same trials without any start-up: the
sum of the trials' seconds over the number of slots, or the longest trial if that is more. The demo library is
prepared first if it is not there.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import ray
import torch

from etude.cli import Progress, guarded, say
from etude.config import load
from etude.data.prepare import prepare
from etude.experiments.audio import AudioExperiment
from etude.experiments.base import part
from etude.experiments.library import prepare_job
from etude.services.session import connect, open_tracking
from etude.training.checkpoint import load_latest
from etude.tuning.sweep import finish, run_sweep
from etude.tuning.trial import trial_folder
from etude.workflow import TuneSettings

SPACE = Path(__file__).resolve().parents[1] / "search_spaces" / "audio.yaml"


class Benchmark(TuneSettings, AudioExperiment):
    """The main job's sweep."""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--home", type=Path, default=Path("~/.local/share/etude-benchmark").expanduser())
    chosen = parser.parse_args(argv)
    settings = load(
        Benchmark,
        [
            "--home", str(chosen.home), "--sweep.name", "benchmark", "--sweep.trials", str(chosen.trials),
            "--training.epochs", str(chosen.epochs),
        ],
        defaults={"sweep": SPACE},
    )  # fmt: skip
    connect(settings.home)
    torch.set_num_threads(1)
    prepare(prepare_job(settings), Progress("prepare"))
    tracking = open_tracking(settings)
    start = time.perf_counter()
    result = run_sweep(part(settings, AudioExperiment), settings.sweep, tracking, {}, say)
    wall_s = time.perf_counter() - start
    finish(result, {"benchmark": True})
    compute = []
    for trial in result.trials:
        state = load_latest(trial_folder(result.folder, trial.number))
        assert state is not None
        compute.append(sum(epoch["seconds"] for epoch in state["history"]))
    slots = int(ray.cluster_resources()["CPU"] // settings.sweep.cpus_per_trial)
    ideal_s = max(sum(compute) / slots, max(compute))
    say(f"{len(compute)} trials, {sum(compute):.0f} s of training, {slots} slots of {os.cpu_count()} cores")
    say(f"ideal packing  {ideal_s:8.1f} s\nsweep          {wall_s:8.1f} s")
    say(f"ratio          {wall_s / ideal_s:8.2f}  (must be at most 1.25)")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
