"""The whole configuration of an audio experiment (seeds 2 and 4), and what is built from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import torch
from pydantic import model_validator
from torch import Tensor

from etude.audio.augment import AugmentConfig
from etude.data.batches import Dataset, Splits, open_splits
from etude.data.live import LiveSegments
from etude.data.sampling import SamplingConfig, TrainingSegments
from etude.errors import UserError
from etude.experiments.library import LibraryExperiment, compiled_or_recomputed, fetcher, taught_by_segment
from etude.objectives.distillation import ObjectiveConfig
from etude.sources import build_source
from etude.students import StudentConfig, build_student
from etude.students.cost import Cost, count
from etude.systems.base import part_of
from etude.systems.student_clap import StudentClap
from etude.teachers import Teacher, build_teacher
from etude.training.checkpoint import load_run


class AudioExperiment(LibraryExperiment):
    """Every key of an audio experiment. Files: --config FILE.yaml. Environment: ETUDE_STUDENT__WIDTH=0.6."""

    system: ClassVar[str] = "student-clap"
    shaping: ClassVar[frozenset[str]] = LibraryExperiment.shaping | {
        "student", "objective", "augment", "sampling",
    }  # fmt: skip

    learns: ClassVar[bool] = True  # False for a job that only prepares, checks or uses

    student: StudentConfig = StudentConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    augment: AugmentConfig = AugmentConfig()
    sampling: SamplingConfig = SamplingConfig()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.learns:
            taught_by_segment([self.teacher])
        compiled_or_recomputed(self.training.compile, self.student, "student")
        return self

    def cost(self, state: Mapping[str, Tensor] | None = None) -> Cost:
        dim = build_teacher(self.teacher).dim
        student = build_student(self.student, dim, normalize=False, state=state and part_of(state, "student"))
        return count(student, torch.empty(1, self.recipe.n_mels, self.recipe.n_frames))

    def open(self) -> "AudioStudy":
        """Open the prepared library. Raises UserError if it was not prepared."""
        teacher = build_teacher(self.teacher)
        source = build_source(self.source, self.cache)
        splits = open_splits(self.store, source.id, self.recipe, [teacher.id], self.split)
        return AudioStudy(self, teacher, splits)


@dataclass(frozen=True)
class AudioStudy:
    """A prepared library with its teacher: a `Study`."""

    settings: AudioExperiment
    teacher: Teacher
    splits: Splits

    @cached_property
    def training(self) -> TrainingSegments:
        """Batches of the training set, its targets those of the store or heard anew."""
        settings, dataset = self.settings, self.splits.train
        if settings.augment.targets == "cached":
            return TrainingSegments(dataset, settings.sampling)
        live = LiveSegments(dataset, fetcher(settings), self.teacher, settings.augment, settings.recipe)
        return TrainingSegments(dataset, settings.sampling, live.batch)

    @property
    def validation(self) -> Dataset:
        return self.splits.validation

    @property
    def test(self) -> Dataset:
        return self.splits.test

    @property
    def data_hash(self) -> str:
        return self.splits.data_hash

    def system(self, seed: int, state: Mapping[str, Tensor] | None = None) -> StudentClap:
        """Raises UserError if the teacher lacks anchors that are asked for, or a file does not fit."""
        settings, teacher = self.settings, self.teacher
        if settings.student.specialist and state is None:
            self._check_specialist(settings.student.specialist)
        torch.manual_seed(seed)
        return StudentClap(
            settings.student,
            settings.objective,
            settings.augment,
            settings.recipe,
            strategy=settings.sampling.strategy,
            dim=teacher.dim,
            normalized=teacher.normalized,
            anchors_AD=None if teacher.anchors is None else torch.from_numpy(teacher.anchors),
            state=state,
        )

    def _check_specialist(self, path: Path) -> None:
        theirs, ours = load_run(path)["identity"], self.identity()
        for key in ("recipe", "teacher"):
            if theirs.get(key) != ours[key]:
                raise UserError(
                    f"the specialist {path} was trained with {key} {theirs.get(key)}, this run has "
                    f"{ours[key]}: give one that shares it"
                )

    def identity(self) -> dict[str, str]:
        return {
            "system": self.settings.system,
            "recipe": self.settings.recipe.id,
            "teacher": self.teacher.id,
            "data": self.data_hash,
            "student": self.settings.student.model_dump_json(exclude={"recompute_activations"}),
        }
