"""Search emotion models, one sweep for each, export and register the winners.

    python jobs/tune_emotion.py                                           five sweeps, one after the other
    python jobs/tune_emotion.py --model harmony --sweep.trials 16
    python jobs/tune_emotion.py --plan

The search space is search_spaces/emotion.yaml unless a --config file has a section `sweep`. All keys: --help.
An unfinished sweep with the same settings is continued; after a finished one a new one starts.
"""

import sys
from pathlib import Path

from etude.cli import guarded, say
from etude.config import load
from etude.emotion_workflow import PiecesSettings, emotion_plan, prepare_pieces
from etude.experiments.base import part
from etude.experiments.emotion import EmotionExperiment, OverModels
from etude.export.emotion import EmotionRelease, collect
from etude.summary import student_summary
from etude.tuning.sweep import draw
from etude.workflow import TuneSettings, tune_and_publish

SPACE = Path(__file__).resolve().parents[1] / "search_spaces" / "emotion.yaml"


class TuneEmotion(OverModels, PiecesSettings, TuneSettings):
    """Search emotion models. Files: --config FILE.yaml. Environment: ETUDE_SWEEP__TRIALS=20."""


def main(argv: list[str]) -> int:
    settings = load(TuneEmotion, argv, defaults={"sweep": SPACE})
    each = [one.model_copy(update={"sweep": _named(one)}) for one in settings.each()]
    drawn = [draw(part(one, EmotionExperiment), one.sweep, (one.seed, 0)) for one in each]
    if settings.plan:
        say(emotion_plan(settings))
        trials = ", ".join(f"{one.model} {len(some)}" for one, some in zip(each, drawn, strict=True))
        say(f"then trials of at most {settings.training.most_epochs} epochs: {trials}")
        return 0
    prepare_pieces(settings)
    for one in each:
        published = tune_and_publish(one, EmotionExperiment, EmotionRelease)
        say(f"{one.model}: {student_summary(published, 'pieces')}")
        if settings.num_samples is None:  # what learned from no music is for no plug-in
            say(f"files of all models: {collect(one, published.folder)}")
    return 0


def _named(one: TuneEmotion) -> object:
    return one.sweep.model_copy(update={"name": f"{one.sweep.name}-{one.model}"})


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
