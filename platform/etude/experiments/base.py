"""What all experiments share, and what training, sweeping and publishing ask of one."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

from pydantic import Field, field_validator
from torch import Tensor

from etude.config import Section, Settings, default_home, mask, without_secrets
from etude.data.store import Store
from etude.errors import UserError
from etude.storage.cache import DiskCache
from etude.storage.files import Files, normalised
from etude.students.cost import Cost
from etude.systems.base import System, TrainingData
from etude.training.plan import TrainingConfig


class TrackingConfig(Section):
    """Where runs are compared."""

    uri: str | None = Field(
        None, description="an MLflow server; without one, MLFLOW_TRACKING_URI, or one started here"
    )
    tensorboard: Path | None = Field(
        None, description="a folder in which every run writes for TensorBoard too; none: MLflow alone"
    )

    @field_validator("tensorboard")
    @classmethod
    def _absolute(cls, folder: Path | None) -> Path | None:
        return folder and folder.expanduser().absolute()


class Experiment(Settings):
    """The keys that every experiment has."""

    system: ClassVar[str]  # names the experiment in MLflow: etude-<system>
    shared: ClassVar[frozenset[str]] = frozenset(
        {"home", "storage", "storage_cache_gb", "tracking"}
    )  # what trials of a sweep must share
    shaping: ClassVar[frozenset[str]] = frozenset({"seed", "training"})  # what a trained student depends on
    judged_by: ClassVar[str] = "skill"  # the figure that is `Figures.score`

    home: Path = Field(default_factory=default_home, description="where all that is made lies")
    storage: str | None = Field(
        None,
        description="where prepared data, checkpoints and sweeps lie instead: a folder that all nodes of a "
        "cluster share, or s3://bucket/folder",
    )
    storage_cache_gb: float = Field(
        50.0, ge=0, description="room below home for data that was read from s3://"
    )
    seed: int = Field(0, ge=0, lt=2**29, description="of weights, order and every change of the data")
    training: TrainingConfig = TrainingConfig()
    tracking: TrackingConfig = TrackingConfig()

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()  # workers run in folders of their own

    @field_validator("storage")
    @classmethod
    def _place(cls, storage: str | None) -> str | None:
        return None if storage is None else normalised(storage)

    @property
    def place(self) -> Files:
        """The storage, or home. Raises UserError if it cannot be used."""
        try:
            return Files(self.storage or self.home)
        except OSError as error:
            raise UserError(f"cannot use {self.storage or self.home} as storage: {error}") from error

    @property
    def store(self) -> Store:
        """Where what is prepared lies."""
        cache = DiskCache(self.cache / "shards", self.storage_cache_gb * 1e9)
        return Store(self.place.at("store"), cache)

    @property
    def published_as(self) -> str:
        """Names the model in MLflow, without `etude-`, and the winner's configuration."""
        return self.system

    @property
    def cache(self) -> Path:
        """Where what can be made again is kept."""
        return self.home / "cache"

    def pinned(self) -> Self:
        """The settings with all that could change meanwhile fixed, so that every process means the same."""
        return self

    @abstractmethod
    def cost(self, state: Mapping[str, Tensor] | None = None) -> Cost:
        """Parameters and multiply-adds of the student for one item. Needs the teacher, but no data.

        With `state`, a checkpoint's "model", files that the student began with are not needed.
        """

    @abstractmethod
    def open(self) -> "Study":
        """Open the data and the teacher. Raises UserError if something is missing."""


class Study(Protocol):
    """An experiment whose data is open: all that training, sweeping and publishing ask of it."""

    @property
    def settings(self) -> Experiment: ...

    @property
    def training(self) -> TrainingData: ...

    @property
    def validation(self) -> Any:
        """What `System.evaluate` takes, for choosing a student."""
        ...

    @property
    def test(self) -> Any:
        """The same, never seen by any choice."""
        ...

    @property
    def data_hash(self) -> str:
        """Twelve digits that change with the data."""
        ...

    def system(self, seed: int, state: Mapping[str, Tensor] | None = None) -> System:
        """The untrained system, whose weights depend on nothing but the settings and the seed.

        With `state`, a checkpoint's "model", it is that one, and files that it began with are not needed.
        """
        ...

    def identity(self) -> dict[str, str]:
        """What a checkpoint must share with a run that resumes from it."""
        ...


E = TypeVar("E", bound=Experiment)


def part(settings: Experiment, kind: type[E]) -> E:
    """The experiment of this kind among a job's settings, without the job's own keys."""
    return kind(**settings.model_dump(include=set(kind.model_fields)))


def fingerprint(study: Study) -> str:
    """Eight digits that change with anything that changes a trained student."""
    settings = study.settings
    shaped = settings.model_dump(mode="json", include=set(settings.shaping))
    text = json.dumps([shaped, study.data_hash], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def configuration(settings: Experiment) -> dict[str, Any]:
    """The resolved configuration as plain values without secrets, for checkpoints."""
    plain: dict[str, Any] = json.loads(json.dumps(mask(without_secrets(settings)), default=str))
    return plain
