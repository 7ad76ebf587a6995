"""Prepare a library: fetch, decode, cut, log-mel, teacher targets; a rerun does only what is missing.

    python jobs/prepare_audio.py                                            the demo library
    python jobs/prepare_audio.py --source.name folder --source.path ~/Music
    python jobs/prepare_audio.py --plan                                     say what would be done, and stop

All keys: --help. Files: --config FILE.yaml.
"""

import os
import sys
from typing import ClassVar

from etude.cli import guarded, say
from etude.config import load
from etude.data.plan import plan
from etude.experiments.audio import AudioExperiment
from etude.experiments.library import prepare_job
from etude.workflow import prepare_library


class PrepareAudio(AudioExperiment):
    """Prepare a library for training. Files: --config FILE.yaml. Environment: ETUDE_SOURCE__PIECES=200."""

    learns: ClassVar[bool] = False

    plan: bool = False


def main(argv: list[str]) -> int:
    settings = load(PrepareAudio, argv).pinned()
    if settings.plan:
        say(plan(prepare_job(settings)).describe(os.cpu_count() or 1))
        return 0
    prepare_library(settings)
    say("next: python jobs/tune_audio.py, or python jobs/train_audio.py, with the same --source")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
