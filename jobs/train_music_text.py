"""Train a music and a text encoder in one space, export and register the pair.

    python jobs/train_music_text.py                       prepare, caption, train, export
    python jobs/train_music_text.py --skip-data-prep      what is prepared will do
    python jobs/train_music_text.py --skip-training       prepare, and export what this run has learned so far
    python jobs/train_music_text.py --export-only         neither prepare nor train
    python jobs/train_music_text.py --plan --captions.name openai --captions.budget_usd 2       what it costs

A run that was cut off resumes under the same name; `--run` names another. All keys: --help.
Then: python jobs/search.py "slow piano piece in a minor key"
"""

import sys

from pydantic import Field

from etude.cli import guarded, say
from etude.config import load
from etude.experiments.music_text import MusicTextExperiment
from etude.export.music_text import MusicTextRelease
from etude.runs import cost_report
from etude.summary import student_summary
from etude.workflow import TrainSettings, captioning_plan, prepare_captioned, train_and_publish


class TrainMusicText(MusicTextExperiment, TrainSettings):
    """Train a music-text pair. Files: --config FILE.yaml. Environment: ETUDE_MUSIC__WIDTH=0.6."""

    skip_data_prep: bool = False
    skip_training: bool = False
    export_only: bool = Field(False, description="skip both")


def main(argv: list[str]) -> int:
    settings = load(TrainMusicText, argv)
    prepare = not (settings.skip_data_prep or settings.export_only)
    learn = not (settings.skip_training or settings.export_only)
    if settings.plan:
        if prepare:
            say(captioning_plan(settings))
        if learn:
            say(f"train for at most {settings.training.most_epochs} epochs: {cost_report(settings)}")
        say("export and register the pair")
        return 0
    if prepare:
        prepare_captioned(settings)
    say(student_summary(train_and_publish(settings, MusicTextExperiment, MusicTextRelease, learn=learn)))
    say('next: python jobs/search.py "slow piano piece in a minor key"')
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
