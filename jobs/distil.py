"""Both students of seed 4 with one command: prepare a library, distil its audio teacher and a text teacher.

    python jobs/distil.py --config both.yaml
    python jobs/distil.py --no-distillation.text_enabled --audio.training.epochs 100
    python jobs/distil.py --text.teacher.name clap_text --text.teacher.model FILE.onnx ...

In a file, `distillation` says which of the two run, and the sections `audio` and `text` hold what
jobs/train_audio.py and jobs/train_text.py would be told. What was cut off resumes.
"""

import os
import sys
from typing import Any

import train_audio
import train_text
from pydantic import Field

from etude.cli import guarded, say
from etude.config import Section, Settings, load, options_outside
from etude.data.plan import plan
from etude.errors import UserError
from etude.experiments.library import prepare_job
from etude.workflow import prepare_library


class DistillationConfig(Section):
    """Which students are trained."""

    audio_enabled: bool = True
    text_enabled: bool = True


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
        words = [*argv, "--section", "audio"]
        audio = load(train_audio.TrainAudio, words).pinned()
        if settings.plan:
            say(plan(prepare_job(audio)).describe(os.cpu_count() or 1))
        else:
            prepare_library(audio)
            train_audio.main(words)
    if chosen.text_enabled:
        train_text.main([*argv, "--section", "text", *["--text.plan"][: settings.plan]])
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
