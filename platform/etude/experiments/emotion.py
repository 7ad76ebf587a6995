"""The whole configuration of an emotion experiment (seed 5), and what is built from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from etude.data.emotion import AnalysisConfig, EmotionRow, data_hash, read_rows
from etude.data.emotion_examples import (
    AugmentationConfig,
    EmotionStream,
    Examples,
    HeldOut,
    examples_of,
)
from etude.data.split import SplitConfig, SplitName, split
from etude.emotion.models import MODELS, Model
from etude.experiments.base import Experiment
from etude.objectives.emotion import EmotionObjective
from etude.sources.demo import DemoConfig
from etude.sources.pieces import PieceSourceConfig, build_piece_source
from etude.students.cost import Cost, count
from etude.students.emotion import build_emotion_network
from etude.students.emotion_layers import EmotionStudentConfig
from etude.systems.emotion import EmotionSystem
from etude.training.plan import TrainingConfig

Sets = Mapping[SplitName, list[EmotionRow]]


def _demo() -> PieceSourceConfig:
    return DemoConfig(pieces=500, max_duration_s=20.0)


class EmotionExperiment(Experiment):
    """Every key of an emotion model. Files: --config FILE.yaml. Environment: ETUDE_TRAINING__EPOCHS=50."""

    system: ClassVar[str] = "emotion"
    shared: ClassVar[frozenset[str]] = Experiment.shared | {
        "source", "analysis", "split", "num_samples", "model",
    }  # fmt: skip
    shaping: ClassVar[frozenset[str]] = Experiment.shaping | {
        "analysis", "model", "student", "objective", "augmentation", "per_piece",
    }  # fmt: skip

    # A factory: of a default, pydantic-settings does not tell whether someone asked for just that.
    source: PieceSourceConfig = Field(default_factory=_demo, discriminator="name")
    analysis: AnalysisConfig = AnalysisConfig()
    split: SplitConfig = SplitConfig(validation=0.1, test=0.1)
    num_samples: int | None = Field(
        None, ge=30, description="made-up pieces in place of a source's, to try things with; no music"
    )
    model: Model = Field("recognizer", description="which of the five")
    student: EmotionStudentConfig = EmotionStudentConfig()
    objective: EmotionObjective = EmotionObjective()
    augmentation: AugmentationConfig = AugmentationConfig()
    per_piece: int = Field(8, ge=1, description="examples of every piece that an epoch draws")
    # Seed 5's batch and rate; an epoch here is eight of its, and where nothing is gained a run ends.
    training: TrainingConfig = TrainingConfig(epochs=30, batch_size=32, learning_rate=1e-3, patience=5)

    @model_validator(mode="before")
    @classmethod
    def _usual_unless_named(cls, data: Any) -> Any:
        given = data.get("source") if isinstance(data, dict) else None
        if isinstance(given, dict) and given.get("name", "demo") == "demo":
            data = data | {"source": _demo().model_dump() | given}
        return data

    @property
    def source_id(self) -> str:
        """Names the pieces in the store."""
        if self.num_samples is not None:
            return f"synthetic-{self.num_samples}"
        return build_piece_source(self.source, self.cache).id

    def sets(self) -> Sets:
        """The prepared pieces of the three sets, which share no work.

        Raises UserError if nothing is prepared, or too little for three sets.
        """
        store = self.store
        catalogue = store.read_catalogue(self.source_id)
        rows = {row.track_id: row for row in read_rows(store, self.analysis.part, catalogue.ids.to_pylist())}
        tracks = [track for track in catalogue if track.id in rows]
        return {
            name: [rows[track.id] for track in chosen] for name, chosen in split(tracks, self.split).items()
        }

    @property
    def published_as(self) -> str:
        return f"{self.system}-{self.model}"

    def cost(self, state: Mapping[str, Tensor] | None = None) -> Cost:
        network = build_emotion_network(self.model, self.student).eval()
        return count(network, torch.zeros(1, network.plan.n_in))

    def open(self) -> "EmotionStudy":
        """Read the prepared pieces. Raises UserError if a set has none that this model can use."""
        return EmotionStudy(self, self.sets())


class OverModels(EmotionExperiment):
    """One of the five models, or all."""

    model: Literal[Model, "all"] = Field(  # type: ignore[assignment]
        "all", description="one of the five, or all, one after the other"
    )

    def each(self) -> list[Self]:
        """The settings of every single model."""
        names = MODELS if self.model == "all" else (self.model,)
        return [self.model_copy(update={"model": name}) for name in names]


@dataclass(frozen=True)
class EmotionStudy:
    """Pieces whose emotions are labelled, for one model: a `Study`."""

    settings: EmotionExperiment
    sets: Sets

    @cached_property
    def training(self) -> EmotionStream:
        """Examples to learn from."""
        settings = self.settings
        return EmotionStream(self._examples("train"), settings.augmentation, settings.per_piece)

    @cached_property
    def validation(self) -> HeldOut:
        return HeldOut.beside(self._examples("validation"), self.training)

    @cached_property
    def test(self) -> HeldOut:
        return HeldOut.beside(self._examples("test"), self.training)

    @cached_property
    def data_hash(self) -> str:
        return data_hash([row for name in ("train", "validation", "test") for row in self.sets[name]])

    def system(self, seed: int, state: Mapping[str, Tensor] | None = None) -> EmotionSystem:
        torch.manual_seed(seed)
        system = EmotionSystem(self.settings.model, self.settings.student, self.settings.objective)
        if state is not None:
            system.load_state_dict(state)
        return system

    def identity(self) -> dict[str, str]:
        return {
            "system": self.settings.system,
            "data": self.data_hash,
            "student": f"{self.settings.model}, {self.settings.student.variant}",
        }

    def _examples(self, name: SplitName) -> Examples:
        return examples_of(self.settings.model, self.sets[name])
