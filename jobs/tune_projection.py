"""Search projections of texts into the space of a frozen audio model, export and register the winner.

    ray job submit -- python jobs/tune_projection.py
    python jobs/tune_projection.py --config search_spaces/projection_encoders.yaml    frozen beside adapted
    python jobs/tune_projection.py --teacher.name muq --source.name musicbench --source.path ~/MusicBench
    python jobs/tune_projection.py --plan

The search space is search_spaces/projection.yaml unless a --config file has a section `sweep`. All keys:
--help. An unfinished sweep with the same settings is continued; after a finished one a new one starts.
"""

import sys
from pathlib import Path

from etude.cli import guarded
from etude.config import load
from etude.experiments.text_projection import TextProjectionExperiment
from etude.export.text_projection import TextProjectionRelease
from etude.workflow import TuneSettings, tune_captioned

SPACE = Path(__file__).resolve().parents[1] / "search_spaces" / "projection.yaml"


class TuneProjection(TextProjectionExperiment, TuneSettings):
    """Search text projections. Files: --config FILE.yaml. Environment: ETUDE_SWEEP__TRIALS=20."""


def main(argv: list[str]) -> int:
    settings = load(TuneProjection, argv, defaults={"sweep": SPACE})
    tune_captioned(settings, TextProjectionExperiment, TextProjectionRelease)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
