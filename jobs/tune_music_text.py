"""Search music-text pairs, export and register the winner.

    ray job submit -- python jobs/tune_music_text.py
    python jobs/tune_music_text.py --config search_spaces/music_text_losses.yaml    each loss alone, and both
    python jobs/tune_music_text.py --plan

The search space is search_spaces/music_text.yaml unless a --config file has a section `sweep`.
All keys: --help.

An unfinished sweep with the same settings is continued; after a finished one a new one starts.
"""

import sys
from pathlib import Path

from etude.cli import guarded, say
from etude.config import load
from etude.experiments.base import part
from etude.experiments.music_text import MusicTextExperiment
from etude.export.music_text import MusicTextRelease
from etude.summary import student_summary
from etude.tuning.sweep import draw
from etude.workflow import TuneSettings, captioning_plan, prepare_captioned, tune_and_publish

SPACE = Path(__file__).resolve().parents[1] / "search_spaces" / "music_text.yaml"


class TuneMusicText(TuneSettings, MusicTextExperiment):
    """Search music-text pairs. Files: --config FILE.yaml. Environment: ETUDE_SWEEP__TRIALS=20."""


def main(argv: list[str]) -> int:
    settings = load(TuneMusicText, argv, defaults={"sweep": SPACE})
    drawn = draw(part(settings, MusicTextExperiment), settings.sweep, (settings.seed, 0))
    if settings.plan:
        say(captioning_plan(settings))
        say(f"then {len(drawn)} trials of at most {settings.training.most_epochs} epochs")
        return 0
    prepare_captioned(settings)
    say(student_summary(tune_and_publish(settings, MusicTextExperiment, MusicTextRelease)))
    say('next: python jobs/search.py "slow piano piece in a minor key"')
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
