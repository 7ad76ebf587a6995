"""The whole configuration of an audio experiment (seeds 2 and 4), and what is built from it."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from etude.audio.augment import AugmentConfig
from etude.audio.recipe import FeatureRecipe
from etude.data.batches import Dataset, Splits, open_splits
from etude.data.live import LiveSegments
from etude.data.plan import Job, PrepareConfig
from etude.data.sampling import SamplingConfig, TrainingSegments
from etude.data.split import SplitConfig
from etude.data.store import Store
from etude.errors import UserError
from etude.experiments.base import Experiment
from etude.objectives.distillation import ObjectiveConfig
from etude.sources import AudioMuseConfig, DemoConfig, SourceConfig, Track, build_source
from etude.students import StudentConfig, build_student
from etude.students.cost import Cost, count
from etude.systems.student_clap import StudentClap, student_state
from etude.teachers import MusiCNNConfig, StoredConfig, Teacher, TeacherConfig, build_teacher
from etude.teachers.stored import StoredTeacher
from etude.training.checkpoint import load_run


class AudioExperiment(Experiment):
    """Every key of an audio experiment. Files: --config FILE.yaml. Environment: ETUDE_STUDENT__WIDTH=0.6."""

    system: ClassVar[str] = "student-clap"
    shared: ClassVar[frozenset[str]] = Experiment.shared | {
        "source", "recipe", "teacher", "prepare", "split",
    }  # fmt: skip
    shaping: ClassVar[frozenset[str]] = Experiment.shaping | {
        "recipe", "teacher", "student", "objective", "augment", "sampling",
    }  # fmt: skip

    source: SourceConfig = Field(DemoConfig(), discriminator="name")
    recipe: FeatureRecipe = FeatureRecipe()
    teacher: TeacherConfig = Field(MusiCNNConfig(), discriminator="name")
    prepare: PrepareConfig = PrepareConfig()
    split: SplitConfig = SplitConfig()
    student: StudentConfig = StudentConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    augment: AugmentConfig = AugmentConfig()
    sampling: SamplingConfig = SamplingConfig()

    @model_validator(mode="before")
    @classmethod
    def _usual_unless_named(cls, data: Any) -> Any:
        for section, usual in (("source", "demo"), ("teacher", "msd_musicnn")):
            given = data.get(section) if isinstance(data, dict) else None
            if isinstance(given, dict) and "name" not in given:
                data = data | {section: given | {"name": usual}}
        return data

    @model_validator(mode="after")
    def _compiled_or_recomputed(self) -> Self:
        if self.training.compile and self.student.recompute_activations:
            raise ValueError(
                "training.compile leaves recomputed blocks uncompiled: set one of training.compile and "
                "student.recompute_activations to false"
            )
        return self

    @property
    def store(self) -> Store:
        """Where what is prepared lies."""
        return Store(self.home / "store")

    def pinned(self) -> Self:
        """The settings with the very vectors that stored teachers have now.

        Raises UserError if the database cannot be asked, or the tracks are not AudioMuse-AI's.
        """
        also = tuple(self._pinned_teacher(teacher) for teacher in self.prepare.also)
        prepare = self.prepare.model_copy(update={"also": also})
        return self.model_copy(update={"teacher": self._pinned_teacher(self.teacher), "prepare": prepare})

    def _pinned_teacher(self, teacher: TeacherConfig) -> TeacherConfig:
        if not isinstance(teacher, StoredConfig):
            return teacher
        if not isinstance(self.source, AudioMuseConfig):
            raise UserError("stored vectors are found by AudioMuse-AI's ids: set source.name to audiomuse")
        if teacher.dsn is None:
            teacher = teacher.model_copy(update={"dsn": self.source.dsn})
        return teacher.model_copy(update={"version": StoredTeacher(teacher).version})

    def cost(self, state: Mapping[str, Tensor] | None = None) -> Cost:
        dim = build_teacher(self.teacher).dim
        student = build_student(self.student, dim, normalize=False, state=state and student_state(state))
        return count(student, torch.empty(1, self.recipe.n_mels, self.recipe.n_frames))

    def open(self) -> "AudioStudy":
        """Open the prepared library. Raises UserError if it was not prepared."""
        teacher = build_teacher(self.teacher)
        source = build_source(self.source, self.cache)
        splits = open_splits(self.store, source.id, self.recipe, teacher.id, self.split)
        return AudioStudy(self, teacher, splits)


def prepare_job(settings: AudioExperiment) -> Job:
    """What the prepare pipeline needs."""
    return Job(
        store=settings.store.root,
        cache=settings.cache,
        source=settings.source,
        recipe=settings.recipe,
        teachers=(settings.teacher, *settings.prepare.also),
        prepare=settings.prepare,
    )


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
        live = LiveSegments(dataset, _fetcher(settings), self.teacher, settings.augment, settings.recipe)
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
            "recipe": self.settings.recipe.id,
            "teacher": self.teacher.id,
            "data": self.data_hash,
            "student": self.settings.student.model_dump_json(exclude={"recompute_activations"}),
        }


def _fetcher(settings: AudioExperiment) -> Callable[[Track], bytes]:
    """Original files one at a time, for a thread that waits for them."""
    source = build_source(settings.source, settings.cache)
    loop = asyncio.new_event_loop()
    return lambda track: loop.run_until_complete(source.fetch(track))
