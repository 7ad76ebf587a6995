"""Train one text student through Ray Train, export and register it.

    python jobs/train_text.py
    python jobs/train_text.py --teacher.name clap_text --teacher.model FILE.onnx --teacher.tokenizer FILE.json
    python jobs/train_text.py --config ~/.local/share/etude/winners/text-student.yaml --training.epochs 60

Nothing needs preparing: queries are drawn, and what the teacher says of them is kept. A run that was cut off
resumes under the same name; `--run` names another. All keys: --help.
"""

import sys

from etude.cli import guarded, say
from etude.config import load
from etude.experiments.text import TextExperiment
from etude.export.text import TextRelease
from etude.summary import student_summary, training_plan
from etude.workflow import TrainSettings, train_and_publish


class TrainText(TextExperiment, TrainSettings):
    """Train one text student. Files: --config FILE.yaml. Environment: ETUDE_STUDENT__HIDDEN=128."""


def main(argv: list[str]) -> int:
    settings = load(TrainText, argv)
    if settings.plan:
        say(training_plan(settings.open()))
        return 0
    say(student_summary(train_and_publish(settings, TextExperiment, TextRelease), "queries"))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
