"""What publishing an emotion model takes: held-out examples for the gate, RTNeural's JSON, its card."""

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from etude.data.emotion_examples import Examples
from etude.emotion.models import FILES
from etude.emotion.thesaurus import thesaurus
from etude.emotion.vad import decode
from etude.errors import UserError
from etude.evaluation.emotion import EmotionFigures
from etude.evaluation.metrics import track_means
from etude.evaluation.thesaurus_plot import thesaurus_plot
from etude.experiments.emotion import EmotionExperiment, EmotionStudy
from etude.export.card import Card
from etude.export.onnx import run_onnx, session
from etude.export.parity import Parity, compare, require
from etude.export.rtneural import write_rtneural
from etude.systems.emotion import EmotionSystem
from etude.systems.emotion import compare as figures

GATE_EXAMPLES = 64
LARGEST_DIFFERENCE = 1e-5  # of any number of an output, between a file and PyTorch (seed 5)
MODELS = "models"  # the folder of the newest file of each model, as a plug-in takes them


@dataclass(frozen=True)
class EmotionRelease:
    """An emotion model's study as `publish` wants it."""

    study: EmotionStudy
    comparable = ("model", "measured", "teacher")

    def record(self) -> dict[str, Any]:
        settings, rows = self.study.settings, self.study.sets["train"]
        return {
            "teacher": " and ".join(sorted(self.study.training.examples.labels)),
            "model": settings.model,
            "measured": settings.analysis.part,
            "analysis": settings.analysis.model_dump(mode="json"),
            "student": settings.student.model_dump(mode="json"),
            "data_licenses": dict(Counter(row.license for row in rows).most_common()),
        }

    def check(self, system: EmotionSystem, files: Sequence[Path]) -> dict[str, Parity]:
        some = self.study.test.examples.first(GATE_EXAMPLES)
        expected = system.answers(some, GATE_EXAMPLES)
        found = compare(expected, run_onnx(session(files[0]), _inputs(some), GATE_EXAMPLES))
        require({"input": found})
        if found.max_difference > LARGEST_DIFFERENCE:
            raise UserError(
                f"the export differs from PyTorch by {found.max_difference:.1e} on real input, allowed is "
                f"{LARGEST_DIFFERENCE:.0e}: the file was not kept"
            )
        return {"input": found}

    def score(self, files: Sequence[Path]) -> EmotionFigures:
        held_out = self.study.validation
        return figures(run_onnx(session(files[0]), _inputs(held_out.examples), 256), held_out)

    def card(self) -> Card:
        study, name = self.study, self.study.settings.model
        labels = Counter(row.label_of for row in study.sets["train"]).most_common()
        said = ", ".join(f"{count} by {LABELS.get(of, of)}" for of, count in labels)
        learned = Counter(row.license for row in study.sets["train"]).most_common()
        return Card(
            tags=("music", "emotion", "midi"),
            what=f"{PURPOSES[name]}; of the pieces it learned from, emotions were labelled: {said}",
            files=((f"{FILES[name]}.onnx", f"`input` (batch_size, {study.test.examples.width}) float32"),),
            figures_on=f"{len(study.sets['test'])} held-out pieces",
            licenses=tuple(f"{count} pieces: {one}" for one, count in learned),
            output="output",
        )

    def plots(self, system: EmotionSystem, folder: Path) -> list[Path]:
        """RTNeural's file, the weights as trained; of the recogniser also where it hears held-out pieces."""
        stem = FILES[system.model]
        beside = [folder / f"{stem}.json", folder / f"{stem}.safetensors"]
        write_rtneural(system.network, stem, beside[0])
        save_file(
            {name: value.contiguous() for name, value in system.network.state_dict().items()}, beside[1]
        )
        if system.model == "recognizer":
            test = self.study.test.examples
            _, first, number = np.unique(test.piece, return_index=True, return_inverse=True)
            heard = track_means(system.answers(test, 256), number, len(first))
            plot = thesaurus_plot(thesaurus(), folder / "thesaurus.png", decode(heard), test.vad[first])
            beside.append(plot)
        return beside


LABELS = {
    "rule": "a rule from their notes, no listener",
    "synthetic": "nobody, they are made up",
    "quadrant": "the quadrant that annotators chose",
}
PURPOSES = {
    "recognizer": "what emotion 10 s of music have",
    "melody": "which pitches an emotion has, from a tonic of C",
    "harmony": "which chord comes next in an emotion",
    "dynamics": "how an emotion is played",
    "groove": "where in the bar an emotion's notes begin",
}


def collect(settings: EmotionExperiment, folder: Path) -> Path:
    """Put a model's newest files where all five stand, as the plug-in takes them; returns the folder."""
    target = settings.home / "exports" / settings.system / MODELS
    target.mkdir(parents=True, exist_ok=True)
    name = FILES[settings.model]
    for ending in (".onnx", ".json", ".safetensors"):
        temporary = target / f".{name}{ending}.{os.getpid()}.tmp"
        shutil.copyfile(folder / f"{name}{ending}", temporary)
        os.replace(temporary, target / f"{name}{ending}")
    return target


def _inputs(examples: Examples) -> Any:
    batch = examples.batch(np.arange(len(examples)))
    inputs: torch.Tensor = batch.inputs
    return inputs.numpy()
