"""What became of runs: figures of every epoch, what a checkpoint was made with, what a configuration costs.

    python jobs/inspect_run.py ~/.local/share/etude/runs                 every run below it, epoch by epoch
    python jobs/inspect_run.py .../trials/003 --columns train/cosine,learning_rate
    python jobs/inspect_run.py .../best.pt --config-of                   the configuration that made it
    python jobs/inspect_run.py --cost audio --student.width 1.0          parameters and multiply-adds

To go on from a checkpoint with a part of its state left behind, as `--training.reset optimizer,schedule`:
jobs/train_audio.py, train_text.py and train_music_text.py with --training.start_from. All options: --help.
"""

import argparse
import sys

from etude.cli import guarded, say
from etude.config import load
from etude.experiments.audio import AudioExperiment
from etude.experiments.base import Experiment
from etude.experiments.music_text import MusicTextExperiment
from etude.experiments.text import TextExperiment
from etude.runs import cost_report, made_with, runs_report

KINDS: dict[str, type[Experiment]] = {
    "audio": AudioExperiment,
    "text": TextExperiment,
    "music-text": MusicTextExperiment,
}


def main(argv: list[str]) -> int:
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--cost", choices=KINDS, help="count the student that the other options describe")
    described, rest = first.parse_known_args(argv)
    if described.cost:
        say(cost_report(load(KINDS[described.cost], rest)))
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, parents=[first],
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("paths", nargs="*", help="checkpoints, runs, or folders of runs; s3:// too")
    parser.add_argument("--columns", default="", help="figures to show instead of the usual, with commas")
    parser.add_argument("--config-of", action="store_true", help="print a checkpoint's configuration")
    chosen = parser.parse_intermixed_args(argv)  # options may come before the paths
    if chosen.config_of:
        say(made_with(chosen.paths))
    else:
        say(runs_report(chosen.paths, [name for name in chosen.columns.split(",") if name]))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
