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

from etude.cli import guarded
from etude.config import load
from etude.experiments.music_text import MusicTextExperiment
from etude.export.music_text import MusicTextRelease
from etude.workflow import TuneSettings, tune_captioned

SPACE = Path(__file__).resolve().parents[1] / "search_spaces" / "music_text.yaml"


class TuneMusicText(MusicTextExperiment, TuneSettings):
    """Search music-text pairs. Files: --config FILE.yaml. Environment: ETUDE_SWEEP__TRIALS=20."""


def main(argv: list[str]) -> int:
    tune_captioned(
        load(TuneMusicText, argv, defaults={"sweep": SPACE}), MusicTextExperiment, MusicTextRelease
    )
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
