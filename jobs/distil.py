"""Both students of seed 4 with one command: prepare a library, distil its audio teacher and a text teacher.

    python jobs/distil.py --config both.yaml
    python jobs/distil.py --distillation.text_enabled false --audio.training.epochs 100
    python jobs/distil.py --text.teacher.name clap_text --text.teacher.model FILE.onnx ...

In a file, `distillation` says which of the two run, and the sections `audio` and `text` hold what
jobs/train_audio.py and jobs/train_text.py would be told. What was cut off resumes.
"""

import os
import sys
from typing import Any

from pydantic import Field

from etude.cli import Progress, guarded, say
from etude.config import Section, Settings, load, options_outside
from etude.data.plan import plan
from etude.data.prepare import prepare
from etude.errors import UserError
from etude.experiments.audio import AudioExperiment, prepare_job
from etude.experiments.text import TextExperiment
from etude.export.audio import AudioRelease
from etude.export.text import TextRelease
from etude.services.session import connect
from etude.summary import prepare_summary, student_summary, training_plan
from etude.workflow import TrainSettings, train_and_publish


class DistillationConfig(Section):
    """Which students are trained."""

    audio_enabled: bool = True
    text_enabled: bool = True


class AudioPart(TrainSettings, AudioExperiment):
    """The section `audio`."""


class TextPart(TrainSettings, TextExperiment):
    """The section `text`."""


class Distil(Settings):
    """Train the audio student, the text student, or both. Files: --config FILE.yaml."""

    plan: bool = False
    distillation: DistillationConfig = DistillationConfig()
    audio: dict[str, Any] = Field(default_factory=dict, description="as for jobs/train_audio.py")
    text: dict[str, Any] = Field(default_factory=dict, description="as for jobs/train_text.py")


def main(argv: list[str]) -> int:
    settings = load(Distil, options_outside(("audio", "text"), argv))
    chosen = settings.distillation
    if not chosen.audio_enabled and not chosen.text_enabled:
        raise UserError("both are disabled: set distillation.audio_enabled or distillation.text_enabled")
    if chosen.audio_enabled:
        audio = load(AudioPart, argv, section="audio").pinned()
        job = prepare_job(audio)
        if settings.plan:
            say(f"{plan(job).describe(os.cpu_count() or 1)}\nthen {audio.training.most_epochs} epochs")
        else:
            connect(audio.home)
            say(prepare_summary(prepare(job, Progress("prepare")), job.store))
            say(student_summary(train_and_publish(audio, AudioExperiment, AudioRelease)))
    if chosen.text_enabled:
        text = load(TextPart, argv, section="text")
        if settings.plan:
            say(training_plan(text.open()))
        else:
            say(student_summary(train_and_publish(text, TextExperiment, TextRelease), "queries"))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
