"""What experiments share that learn from a prepared library of music."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from etude.audio.recipe import FeatureRecipe
from etude.data.batches import TrackRow, open_splits
from etude.data.plan import Job, PrepareConfig
from etude.data.split import SplitConfig
from etude.errors import UserError
from etude.experiments.base import Experiment
from etude.sources import AudioMuseConfig, DemoConfig, SourceConfig, Track, build_source
from etude.students import StudentConfig
from etude.teachers import AudioSpaceConfig, MusiCNNConfig, StoredConfig, TeacherConfig, build_teacher
from etude.teachers.stored import StoredTeacher


class LibraryExperiment(Experiment):
    """Which music, heard how, with whose targets, and how it is divided."""

    shared: ClassVar[frozenset[str]] = Experiment.shared | {
        "source", "recipe", "teacher", "prepare", "split", "accept_licence",
    }  # fmt: skip
    shaping: ClassVar[frozenset[str]] = Experiment.shaping | {"recipe", "teacher"}

    source: SourceConfig = Field(DemoConfig(), discriminator="name")
    recipe: FeatureRecipe = FeatureRecipe()
    teacher: TeacherConfig = Field(MusiCNNConfig(), discriminator="name")
    prepare: PrepareConfig = PrepareConfig()
    split: SplitConfig = SplitConfig()
    # No dump holds it: it is part of no sweep's identity, and a configuration that is kept accepts nothing.
    accept_licence: bool = Field(
        False, exclude=True, description="accept, once, that a teacher's weights forbid commercial use"
    )

    @model_validator(mode="before")
    @classmethod
    def _usual_unless_named(cls, data: Any) -> Any:
        for section, usual in (("source", "demo"), ("teacher", "msd_musicnn")):
            given = data.get(section) if isinstance(data, dict) else None
            if isinstance(given, dict) and "name" not in given:
                data = data | {section: given | {"name": usual}}
        return data

    @property
    def teachers(self) -> tuple[TeacherConfig, ...]:
        """All that hear, the one that a student learns from first."""
        return (self.teacher, *self.prepare.also)

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


def taught_by_segment(teachers: Sequence[TeacherConfig]) -> None:
    """Raises ValueError for a teacher that says nothing of the recipe's segments."""
    for teacher in teachers:
        if isinstance(teacher, AudioSpaceConfig):
            raise ValueError(
                f"the teacher {teacher.title} gives vectors of windows of its own, not of segments, from "
                "which a student learns here: choose another"
            )


def compiled_or_recomputed(compiled: bool, student: StudentConfig, section: str) -> None:
    """Raises ValueError if the student of `section` is to be both: the compiler cannot follow recomputing."""
    if compiled and student.recompute_activations:
        raise ValueError(
            "training.compile cannot compile recomputed blocks: set one of training.compile and "
            f"{section}.recompute_activations to false"
        )


def prepare_job(settings: LibraryExperiment) -> Job:
    """What the prepare pipeline needs."""
    return Job(
        store=settings.store.root,
        cache=settings.cache,
        source=settings.source,
        recipe=settings.recipe,
        teachers=settings.teachers,
        prepare=settings.prepare,
    )


def prepared_rows(settings: LibraryExperiment) -> list[TrackRow]:
    """The tracks of the library that all its teachers have heard. Raises UserError if there are none."""
    source = build_source(settings.source, settings.cache)
    ids = [build_teacher(one).id for one in settings.teachers]
    splits = open_splits(settings.store, source.id, settings.recipe, ids, settings.split)
    return [*splits.train, *splits.validation, *splits.test]


def fetcher(settings: LibraryExperiment) -> Callable[[Track], bytes]:
    """Original files one at a time, for a thread that waits for them."""
    source = build_source(settings.source, settings.cache)
    loop = asyncio.new_event_loop()
    return lambda track: loop.run_until_complete(source.fetch(track))
