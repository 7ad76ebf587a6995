"""The main job: prepare a library, search students on it, export and register the winner.

    ray job submit -- python jobs/tune_audio.py
    ray job submit -- python jobs/tune_audio.py --source.name folder --source.path ~/Music
    python jobs/tune_audio.py --plan

The search space is search_spaces/audio.yaml unless a --config file has a section `sweep`. All keys: --help.
An unfinished sweep with the same settings is continued; after a finished one a new one starts.
"""

import os
import sys
from pathlib import Path

from etude.cli import guarded, say
from etude.config import load
from etude.data.plan import plan
from etude.experiments.audio import AudioExperiment
from etude.experiments.base import part
from etude.experiments.library import prepare_job
from etude.export.audio import AudioRelease
from etude.summary import student_summary
from etude.tuning.sweep import draw
from etude.workflow import TuneSettings, prepare_library, tune_and_publish

SPACE = Path(__file__).resolve().parents[1] / "search_spaces" / "audio.yaml"


class TuneAudio(AudioExperiment, TuneSettings):
    """Search students for a library. Files: --config FILE.yaml. Environment: ETUDE_SWEEP__TRIALS=20."""


def main(argv: list[str]) -> int:
    settings = load(TuneAudio, argv, defaults={"sweep": SPACE}).pinned()
    drawn = draw(part(settings, AudioExperiment), settings.sweep, (settings.seed, 0))
    if settings.plan:
        say(plan(prepare_job(settings)).describe(os.cpu_count() or 1))
        say(f"then {len(drawn)} trials of at most {settings.training.most_epochs} epochs")
        return 0
    prepare_library(settings)
    say(student_summary(tune_and_publish(settings, AudioExperiment, AudioRelease)))
    say("next: make train (the winner's configuration, longer), make stop")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
