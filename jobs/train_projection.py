"""Train projections of texts into the space of a frozen audio model, export and register them.

    python jobs/train_projection.py                                  MusiCNN's vectors of the demo library
    python jobs/train_projection.py --space muq --source.name musicbench --source.path ~/MusicBench
    python jobs/train_projection.py --space all --source.name musicbench --source.path ~/MusicBench
    python jobs/train_projection.py --encoder.lora.rank 16           adapters learn as well
    python jobs/train_projection.py --plan

A run that was cut off resumes under the same name; `--run` names another. All keys: --help.
Then: python jobs/search.py "slow piano piece in a minor key"
"""

import sys

from etude.cli import guarded, say
from etude.config import load
from etude.experiments.spaces import OverSpaces
from etude.experiments.text_projection import TextProjectionExperiment
from etude.export.text_projection import TextProjectionRelease, add_to_summary
from etude.summary import student_summary
from etude.workflow import TrainSettings, captioning_plan, prepare_captioned, train_and_publish


class TrainProjection(OverSpaces, TrainSettings):
    """Train text projections. Files: --config FILE.yaml. Environment: ETUDE_HEAD__HIDDEN=512."""

    skip_data_prep: bool = False


def main(argv: list[str]) -> int:
    settings = load(TrainProjection, argv)
    if settings.plan:
        say("" if settings.skip_data_prep else captioning_plan(settings))
        epochs, spaces = settings.training.most_epochs, [one.space_name for one in settings.each()]
        say(f"train for at most {epochs} epochs, export and register: {', '.join(spaces)}")
        return 0
    if not settings.skip_data_prep:
        prepare_captioned(settings)
    for one in settings.each():
        published = train_and_publish(one, TextProjectionExperiment, TextProjectionRelease)
        say(student_summary(published))
        say(f"every space's figures: {add_to_summary(one.home, one.space_name, published.test)}")
    say('next: python jobs/search.py "slow piano piece in a minor key"')
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
