"""Compare an exported student with its teacher over a prepared library: quality, text queries, speed.

    python jobs/evaluate.py --model ~/.local/share/etude/exports/student-clap/train-1a2b3c4d
    python jobs/evaluate.py --model FOLDER --set all --queries mine.txt
    python jobs/evaluate.py --model FOLDER --text_student OTHER_FOLDER/text_student.onnx

The config.yaml in the model's folder says which library and teacher, unless other options say otherwise.
Nothing else should run meanwhile: times are measured too. All keys: --help.
"""

import sys

from etude.cli import Progress, guarded, say
from etude.evaluation.inputs import gather, load_settings
from etude.evaluation.library import measure
from etude.evaluation.page import short
from etude.evaluation.written import keep, write_report
from etude.services.session import open_tracking


def main(argv: list[str]) -> int:
    settings = load_settings(argv)
    inputs = gather(settings)
    tracking = open_tracking(inputs.study.settings)
    evaluation = measure(inputs, Progress("embed"))
    files = write_report(evaluation)
    url = keep(evaluation, files, tracking)
    say(f"{short(evaluation)}\nreport: {files[0]}\nMLflow: {url}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
