"""A held-out figure for each loss term and each change of the audio: the sweep of search_spaces/terms.yaml.

    python benchmarks/terms.py [--epochs 8] [--home FOLDER] [options of jobs/tune_audio.py]

Prints a Markdown table: the test set's skill and neighbour overlap of every trial's best checkpoint, and the
difference to the trial `plain`, which has the same seed. How far the plain trials from three seeds lie apart
tells which differences mean something. The demo library is prepared first if it is not there.
"""

import argparse
import sys
from pathlib import Path

import torch

from etude.cli import Progress, guarded, say
from etude.config import load
from etude.data.prepare import prepare
from etude.evaluation.figures import shown
from etude.evaluation.metrics import Metrics
from etude.experiments.audio import AudioExperiment
from etude.experiments.base import part
from etude.experiments.library import prepare_job
from etude.services.session import connect, open_tracking
from etude.training.checkpoint import load_checkpoint
from etude.tuning.sweep import SweepResult, Trial, finish, run_sweep
from etude.workflow import TuneSettings

CASES = Path(__file__).resolve().parents[1] / "search_spaces" / "terms.yaml"
PLAIN = "plain"


class Benchmark(TuneSettings, AudioExperiment):
    """The sweep over named cases."""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--home", type=Path, default=Path("~/.local/share/etude-benchmark").expanduser())
    chosen, others = parser.parse_known_args(argv)
    epochs = [] if chosen.epochs is None else ["--training.epochs", str(chosen.epochs)]
    settings = load(
        Benchmark, ["--home", str(chosen.home), *epochs, *others], defaults={"sweep": CASES}
    ).pinned()
    connect(settings.home)
    torch.set_num_threads(1)
    prepare(prepare_job(settings), Progress("prepare"))
    tracking = open_tracking(settings)
    result = run_sweep(part(settings, AudioExperiment), settings.sweep, tracking, {}, say)
    failed = [trial for trial in result.trials if trial.score is None]
    figures = {
        trial.name: _held_out(result, trial)
        for trial in sorted(result.trials, key=lambda trial: trial.number)
        if trial not in failed
    }
    say(f"\n{_table(figures)}")
    for trial in failed:
        say(f"{trial.name} failed: {trial.reason}")
    tracking.end(result.run_id, "FINISHED")
    finish(result, {"benchmark": True})
    return 1 if failed else 0


def _held_out(result: SweepResult, trial: Trial) -> Metrics:
    """Figures of a trial's best checkpoint on the test set."""
    study = trial.settings.open()
    system = study.system(0, load_checkpoint(result.checkpoint(trial))["model"])
    return system.evaluate(study.test, trial.settings.training.batch_size)


def _table(figures: dict[str, Metrics]) -> str:
    """Markdown, with the spread of the plain trials in a last sentence."""
    plain = figures[PLAIN]
    lines = ["| case | skill | to plain | overlap at 10 | to plain |", "|---|---|---|---|---|"]
    for name, found in figures.items():
        skill, overlap = found.skill - plain.skill, found.overlap - plain.overlap
        lines.append(
            f"| {name} | {shown(found.skill)} | {skill:+.3f} | {shown(found.overlap)} | {overlap:+.3f} |"
        )
    alike = [found for name, found in figures.items() if name.startswith(PLAIN)]
    skills, overlaps = [one.skill for one in alike], [one.overlap for one in alike]
    return "\n".join(lines) + (
        f"\n\n{len(alike)} plain trials from different seeds: skill {min(skills):.3f} to {max(skills):.3f}, "
        f"overlap {min(overlaps):.3f} to {max(overlaps):.3f} (chance {plain.overlap_chance:.3f}). "
        f"Test set: {plain.n_tracks:.0f} pieces, {plain.n_segments:.0f} segments."
    )


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
