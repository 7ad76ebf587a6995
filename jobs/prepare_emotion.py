"""Prepare pieces for the five emotion models: their notes, their sound, their labels.

    python jobs/prepare_emotion.py                                         the demo library's scores
    python jobs/prepare_emotion.py --source.name labelled --source.path ~/labelled
    python jobs/prepare_emotion.py --source.name deam --source.path ~/DEAM
    python jobs/prepare_emotion.py --num-samples 1000                      made-up pieces, to try things with
    python jobs/prepare_emotion.py --plan

Other sources: pmemo, emopia, vgmidi, lakh, maestro, groove. Writes train.json, val.json, test.json and
thesaurus.json to `--output` too. A rerun does only what is missing. All keys: --help.
Then: python jobs/train_emotion.py, with the same --source.
"""

import sys

from etude.cli import guarded, say
from etude.config import load
from etude.emotion_workflow import PrepareEmotion, emotion_plan, prepare_pieces


def main(argv: list[str]) -> int:
    settings = load(PrepareEmotion, argv)
    if settings.plan:
        say(emotion_plan(settings))
        return 0
    prepare_pieces(settings)
    same = f"--num-samples {settings.num_samples}" if settings.num_samples else "the same --source"
    say(f"next: python jobs/train_emotion.py with {same}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
