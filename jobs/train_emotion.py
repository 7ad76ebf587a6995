"""Train the emotion models through Ray Train, export and register them.

    python jobs/train_emotion.py                                         all five
    python jobs/train_emotion.py --model melody --training.epochs 60 --training.batch_size 64
    python jobs/train_emotion.py --model all --student.variant recurrent  seed 5's plug-in: with LSTMs
    python jobs/train_emotion.py --model melody --workers.use_gpu true
    python jobs/train_emotion.py --model groove --training.start_from best.pt --student.frozen_layers 2 \\
        --training.reset optimizer,schedule --training.epochs 150 --run fine \\
        --source.name labelled --source.path ~/labelled                   fine-tuning

Pieces that are missing are prepared first. A run that was cut off resumes under the same name; `--run` names
another. All keys: --help.
Then: python jobs/validate_emotion.py, and python jobs/compose.py --node joy/elation/mild
"""

import sys

from etude.cli import guarded, say
from etude.config import load
from etude.emotion_workflow import PiecesSettings, emotion_plan, prepare_pieces
from etude.experiments.emotion import EmotionExperiment, OverModels
from etude.export.emotion import EmotionRelease, collect
from etude.summary import student_summary
from etude.workflow import TrainSettings, train_and_publish_each


class TrainEmotion(OverModels, PiecesSettings, TrainSettings):
    """Train emotion models. Files: --config FILE.yaml. Environment: ETUDE_TRAINING__EPOCHS=50."""


def main(argv: list[str]) -> int:
    settings = load(TrainEmotion, argv)
    models = [str(one.model) for one in settings.each()]
    if settings.plan:
        say(emotion_plan(settings))
        say(f"train for at most {settings.training.most_epochs} epochs, export: {', '.join(models)}")
        return 0
    prepare_pieces(settings)
    each = [*settings.each()]
    trained = train_and_publish_each(each, EmotionExperiment, EmotionRelease)
    for one, published in zip(each, trained, strict=True):
        say(f"{one.model}: {student_summary(published, 'pieces')}")
        if settings.num_samples is None:  # what learned from no music is for no plug-in
            say(f"files of all models: {collect(one, published.folder)}")
    say("next: python jobs/validate_emotion.py, or python jobs/compose.py --node joy/elation/mild")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
