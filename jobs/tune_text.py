"""Search text students, export and register the winner.

    ray job submit -- python jobs/tune_text.py
    python jobs/tune_text.py --teacher.name clap_text --teacher.model FILE.onnx --teacher.tokenizer FILE.json
    python jobs/tune_text.py --plan

The search space is search_spaces/text.yaml unless a --config file has a section `sweep`. All keys: --help.
An unfinished sweep with the same settings is continued; after a finished one a new one starts.
"""

import sys
from pathlib import Path

from etude.cli import guarded, say
from etude.config import load
from etude.experiments.base import part
from etude.experiments.text import TextExperiment
from etude.export.text import TextRelease
from etude.summary import student_summary, training_plan
from etude.tuning.sweep import draw
from etude.workflow import TuneSettings, tune_and_publish

SPACE = Path(__file__).resolve().parents[1] / "search_spaces" / "text.yaml"


class TuneText(TextExperiment, TuneSettings):
    """Search text students. Files: --config FILE.yaml. Environment: ETUDE_SWEEP__TRIALS=20."""


def main(argv: list[str]) -> int:
    settings = load(TuneText, argv, defaults={"sweep": SPACE})
    drawn = draw(part(settings, TextExperiment), settings.sweep, (settings.seed, 0))
    if settings.plan:
        say(f"{len(drawn)} trials, each at most\n{training_plan(settings.open())}")
        return 0
    say(student_summary(tune_and_publish(settings, TextExperiment, TextRelease), "queries"))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
