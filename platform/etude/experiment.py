"""The whole configuration of an audio experiment, and what is built from it."""

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import Field, field_validator, model_validator

from etude.audio.augment import AugmentConfig
from etude.audio.recipe import FeatureRecipe
from etude.config import Section, Settings, default_home
from etude.data.batches import Splits, open_splits
from etude.data.plan import Job, PrepareConfig
from etude.data.split import SplitConfig
from etude.data.store import Store
from etude.errors import UserError
from etude.objectives.distillation import ObjectiveConfig
from etude.sources import AudioMuseConfig, DemoConfig, SourceConfig, build_source
from etude.students import StudentConfig
from etude.systems.student_clap import StudentClap
from etude.teachers import MusiCNNConfig, StoredConfig, Teacher, TeacherConfig, build_teacher
from etude.teachers.stored import StoredTeacher
from etude.training.loop import TrainingConfig


class TrackingConfig(Section):
    """Where runs are compared."""

    uri: str | None = Field(
        None, description="an MLflow server; without one, MLFLOW_TRACKING_URI, or one started here"
    )


class Experiment(Settings):
    """Every key of an experiment. Files: --config FILE.yaml. Environment: ETUDE_STUDENT__WIDTH=0.6."""

    home: Path = Field(default_factory=default_home, description="where all that is made lies")
    seed: int = 0
    source: SourceConfig = Field(DemoConfig(), discriminator="name")
    recipe: FeatureRecipe = FeatureRecipe()
    teacher: TeacherConfig = Field(MusiCNNConfig(), discriminator="name")
    prepare: PrepareConfig = PrepareConfig()
    split: SplitConfig = SplitConfig()
    student: StudentConfig = StudentConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    augment: AugmentConfig = AugmentConfig()
    training: TrainingConfig = TrainingConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="before")
    @classmethod
    def _usual_unless_named(cls, data: Any) -> Any:
        for section, usual in (("source", "demo"), ("teacher", "msd_musicnn")):
            given = data.get(section) if isinstance(data, dict) else None
            if isinstance(given, dict) and "name" not in given:
                data = data | {section: given | {"name": usual}}
        return data

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()  # workers run in folders of their own

    @property
    def store(self) -> Store:
        return Store(self.home / "store")

    @property
    def cache(self) -> Path:
        return self.home / "cache"


E = TypeVar("E", bound=Experiment)


def pinned(settings: E) -> E:
    """The settings with the very vectors that a stored teacher has now, so that every process means those.

    Raises UserError if the database cannot be asked, or the tracks are not AudioMuse-AI's.
    """
    teacher = settings.teacher
    if not isinstance(teacher, StoredConfig):
        return settings
    if not isinstance(settings.source, AudioMuseConfig):
        raise UserError("stored vectors are found by AudioMuse-AI's ids: set source.name to audiomuse")
    if teacher.dsn is None:
        teacher = teacher.model_copy(update={"dsn": settings.source.dsn})
    teacher = teacher.model_copy(update={"version": StoredTeacher(teacher).version})
    return settings.model_copy(update={"teacher": teacher})


def prepare_job(settings: Experiment) -> Job:
    """What the prepare pipeline needs."""
    return Job(
        store=settings.store.root,
        cache=settings.cache,
        source=settings.source,
        recipe=settings.recipe,
        teacher=settings.teacher,
        prepare=settings.prepare,
    )


def open_data(settings: Experiment, teacher: Teacher) -> Splits:
    """The prepared library. Raises UserError if it was not prepared."""
    source = build_source(settings.source, settings.cache)
    return open_splits(settings.store, source.id, settings.recipe, teacher.id, settings.split)


def build_system(settings: Experiment, teacher: Teacher, seed: int) -> StudentClap:
    """The untrained system; its weights depend on nothing but the settings and the seed."""
    torch.manual_seed(seed)
    return StudentClap(
        settings.student,
        settings.objective,
        settings.augment,
        settings.recipe,
        dim=teacher.dim,
        normalized=teacher.normalized,
    )


def load_teacher(settings: Experiment) -> Teacher:
    """The teacher that the settings name."""
    return build_teacher(settings.teacher)


def identity(settings: Experiment, teacher: Teacher, splits: Splits) -> dict[str, str]:
    """What a checkpoint must share with a run that resumes from it."""
    return {
        "recipe": settings.recipe.id,
        "teacher": teacher.id,
        "data": splits.data_hash,
        "student": settings.student.model_dump_json(),
    }


def fingerprint(settings: Experiment, splits: Splits) -> str:
    """Eight digits that change with anything that changes a trained student."""
    shaping = {"seed", "student", "objective", "augment", "training", "recipe", "teacher"}
    text = json.dumps([settings.model_dump(mode="json", include=shaping), splits.data_hash], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
