"""What an evaluation is told and reads: a student, a prepared library and queries that fit together."""

import argparse
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from etude.config import load
from etude.data.batches import Dataset, Splits
from etude.errors import UserError
from etude.evaluation.retrieval import QUERIES, read_queries
from etude.evaluation.text import (
    Encoder,
    ExportedText,
    embed_queries,
    encoder_of,
    read_record,
    without_encoder,
)
from etude.experiments.audio import AudioExperiment, AudioStudy
from etude.experiments.base import part
from etude.export.onnx import session

SetName = Literal["test", "validation", "train", "all"]


class Evaluate(AudioExperiment):
    """Evaluate an exported student. Files: --config FILE.yaml. Environment: ETUDE_SET=validation."""

    model: Path | None = Field(None, description="an export folder, or a student.onnx")
    set: SetName = Field("test", description="which tracks of the library; test is seen by no choice")
    queries: Path | None = Field(None, description="text queries, one a line; without a file, 14 usual ones")
    text_student: Path | None = Field(None, description="text_student.onnx: ranks for the student's side")


@dataclass(frozen=True)
class Model:
    """An exported student over mel spectrograms, with its form over waveforms if that lies beside it."""

    path: Path
    waveform: Path | None
    hash: str  # sixteen digits of the sha256 of the file
    record: dict[str, object]  # what the file says of how it was made


@dataclass(frozen=True)
class Texts:
    """Queries as unit vectors [q, dim] of the teacher's encoder, and of whichever ranks for the student."""

    queries: tuple[str, ...]
    teacher_QD: NDArray[np.float64]
    student_QD: NDArray[np.float64]
    by: str  # what ranks for the student


@dataclass(frozen=True)
class Inputs:
    """All that an evaluation reads, checked against each other."""

    settings: Evaluate
    model: Model
    study: AudioStudy
    dataset: Dataset
    texts: Texts | str  # or why there are none

    @property
    def name(self) -> str:
        """Another one for another model, set, library or split, for other queries or another text student."""
        asked = "" if isinstance(self.texts, str) else [self.texts.queries, self.texts.by]
        rest = hashlib.sha256(json.dumps([self.study.data_hash, asked]).encode()).hexdigest()[:6]
        return f"{self.model.hash}-{self.settings.set}-{rest}"


def load_settings(argv: Sequence[str]) -> Evaluate:
    """A job's settings; the config.yaml beside the model goes before all that is given otherwise.

    Raises UserError if a model is named that cannot be evaluated.
    """
    named = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    named.add_argument("--model", type=Path, default=os.environ.get("ETUDE_MODEL"))
    path = named.parse_known_args(list(argv))[0].model
    if path is not None:
        beside = open_model(Path(path)).path.parent / "config.yaml"
        if beside.is_file():
            argv = ["--config", str(beside), *argv]
    return load(Evaluate, argv)


def open_model(path: Path) -> Model:
    """Find and check an exported student. Raises UserError if it is none over mel spectrograms."""
    path = path.expanduser()
    file = path / "student.onnx" if path.is_dir() else path
    record = read_record(file)
    if not {"recipe_id", "teacher"} <= record.keys():
        raise UserError(f"{file} is no audio student: give a student.onnx")
    taken = [one.name for one in session(file).get_inputs()]
    if taken != ["mel_spectrogram"]:
        raise UserError(f"{file} takes {', '.join(taken)}: give student.onnx, which takes mel_spectrogram")
    waveform = file.with_name(f"{file.stem}_waveform.onnx")
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    return Model(file, waveform if waveform.is_file() else None, digits, record)


def gather(settings: Evaluate) -> Inputs:
    """Open all that is to be compared. Raises UserError if something is missing or does not fit."""
    if settings.model is None:
        raise UserError("no model is given: --model FOLDER, an export, or its student.onnx")
    model = open_model(settings.model)
    experiment = part(settings, AudioExperiment).pinned()
    if (made_with := model.record["recipe_id"]) != experiment.recipe.id:
        raise UserError(
            f"{model.path} was trained on features of recipe {made_with}, the configuration says "
            f"{experiment.recipe.id}: give --config with the config.yaml of its export"
        )
    study = experiment.open()
    if (learned_from := model.record["teacher"]) != study.teacher.id:
        raise UserError(
            f"{model.path} learned from {learned_from}, the configuration's teacher is {study.teacher.id}: "
            "give --config with the config.yaml of its export, or set teacher"
        )
    dataset = chosen_set(study.splits, settings.set)
    return Inputs(settings, model, study, dataset, _texts(settings))


def chosen_set(splits: Splits, name: SetName) -> Dataset:
    """The tracks of one set, or all. Raises UserError if there are none."""
    sets = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    chosen = list(sets.values()) if name == "all" else [sets[name]]
    rows = [row for dataset in chosen for row in dataset]
    if not rows:
        raise UserError(f"the {name} set holds no track: prepare more music, or choose another --set")
    return Dataset(rows, splits.test.recipe)


def _texts(settings: Evaluate) -> Texts | str:
    teacher = encoder_of(settings.teacher)
    if teacher is None:
        reason = without_encoder(settings.teacher)
        if settings.queries or settings.text_student:
            option = "--queries" if settings.queries else "--text_student"
            raise UserError(f"{option} cannot be used: {reason}")
        return reason
    queries = read_queries((settings.queries or QUERIES).expanduser())
    of_student: Encoder = teacher
    by = "the teacher's text encoder"
    if settings.text_student:
        of_student = ExportedText(settings.text_student.expanduser(), teacher.id)
        by = f"the text student {of_student.hash[:8]}"
    of_teacher = embed_queries(teacher, queries)
    return Texts(queries, of_teacher, embed_queries(of_student, queries), by)
