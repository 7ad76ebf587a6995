"""Train one audio student through Ray Train, export and register it.

    python jobs/train_audio.py --config ~/.local/share/etude/winners/student-clap.yaml --training.epochs 60
    python jobs/train_audio.py --student.width 0.6 --training.stage2_epochs 10 --run wide
    python jobs/train_audio.py --training.start_from runs/wide-.../best.pt --training.reset optimizer,schedule

The library must be prepared (jobs/prepare_audio.py, or the sweep did it). A run that was cut off resumes
under the same name; `--run` names another. All keys: --help.
"""

import sys

from etude.cli import guarded, say
from etude.config import load
from etude.experiments.audio import AudioExperiment
from etude.export.audio import AudioRelease
from etude.summary import student_summary, training_plan
from etude.workflow import TrainSettings, train_and_publish


class TrainAudio(AudioExperiment, TrainSettings):
    """Train one student. Files: --config FILE.yaml. Environment: ETUDE_STUDENT__WIDTH=0.6."""


def main(argv: list[str]) -> int:
    settings = load(TrainAudio, argv)
    if settings.plan:
        say(training_plan(settings.pinned().open()))
        return 0
    say(student_summary(train_and_publish(settings, AudioExperiment, AudioRelease)))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
