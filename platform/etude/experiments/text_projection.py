"""The whole configuration of a text projection (seed 3), and what is built from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from etude.data.projection import Described, ProjectionSplits, Reader, TrainingPairs, describe
from etude.data.text import CachedTeacher
from etude.experiments.captioned import CaptionedExperiment
from etude.students.cost import Cost, linear_macs
from etude.students.frozen_sentences import FrozenSentences
from etude.students.projection import ProjectionHead, ProjectionHeadConfig
from etude.students.sentence import SentenceEncoder, build_sentence_encoder, usual_device
from etude.students.sentence_config import MiniLMEncoderConfig, SentenceEncoderConfig
from etude.systems.base import part_of
from etude.systems.text_projection import ProjectionObjective, TextProjection
from etude.teachers import Teacher, build_teacher
from etude.teachers.enrichment import BLOCKS, Enrichment, EnrichmentConfig, fit
from etude.training.plan import TrainingConfig


class TextProjectionExperiment(CaptionedExperiment):
    """Every key of a text projection. Files: --config FILE.yaml. Environment: ETUDE_HEAD__HIDDEN=512."""

    system: ClassVar[str] = "text-projection"
    prepared_by: ClassVar[str] = "jobs/prepare_musicbench.py"
    judged_by: ClassVar[str] = "t2a_R_at_1"  # MLflow takes no @
    shaping: ClassVar[frozenset[str]] = CaptionedExperiment.shaping | {
        "enrichment", "encoder", "head", "objective", "captions_per_track",
    }  # fmt: skip

    enrichment: EnrichmentConfig = EnrichmentConfig()
    encoder: SentenceEncoderConfig = Field(MiniLMEncoderConfig(), discriminator="name")
    head: ProjectionHeadConfig = ProjectionHeadConfig()
    objective: ProjectionObjective = ProjectionObjective()
    captions_per_track: int = Field(2, ge=1, description="captions drawn of every track each epoch")
    training: TrainingConfig = TrainingConfig(epochs=20, batch_size=64, learning_rate=1e-3, floor=1e-4)

    @property
    def published_as(self) -> str:
        return f"{self.system}-{self.teacher.name.replace('_', '-')}"

    def cost(self, state: Mapping[str, Tensor] | None = None) -> Cost:
        """The encoder, its adapters and the head, for a caption of the greatest length.

        Without attention's own products, which for captions are a few percent.
        """
        encoder = build_sentence_encoder(self.encoder)
        width = build_teacher(self.teacher).dim * len(BLOCKS)  # at most: a library may leave blocks out
        dim = width if state is None else len(part_of(state, "text.head.norm2")["bias"])
        head = ProjectionHead(encoder.dim, self.head, dim)
        parameters = sum(p.numel() for module in (encoder, head) for p in module.parameters())
        return Cost(parameters, linear_macs(encoder) * encoder.reader.max_tokens + linear_macs(head))

    def open(self) -> "TextProjectionStudy":
        """Open the prepared library with its captions. Raises UserError if either was not prepared."""
        encoder = build_sentence_encoder(self.encoder, usual_device())
        reader: Reader = (
            LearningReader(encoder)
            if self.encoder.lora
            else FrozenReader(CachedTeacher(FrozenSentences(encoder), self.cache / "text", cuts=True))
        )
        return TextProjectionStudy(self, build_teacher(self.teacher), encoder, self.described(reader))

    def described(self, reader: Reader | None = None) -> ProjectionSplits:
        """The prepared library in its space. Raises UserError if it or its captions were not prepared."""
        splits, captions = self.captioned_splits()
        enrichment = fit(self.enrichment, (row.segment_targets for row in splits.train))
        return describe(splits, captions, enrichment, reader)


@dataclass(frozen=True)
class TextProjectionStudy:
    """A captioned library in a frozen space: a `Study`."""

    settings: TextProjectionExperiment
    teacher: Teacher
    encoder: SentenceEncoder
    splits: ProjectionSplits

    @property
    def enrichment(self) -> Enrichment:
        """What makes a track's vector of its windows, as the training set has it."""
        return self.splits.train.enrichment

    @cached_property
    def training(self) -> TrainingPairs:
        """Captions of the training set beside the vectors of their music."""
        return TrainingPairs(self.splits.train, self.settings.captions_per_track)

    @property
    def validation(self) -> Described:
        return self.splits.validation

    @property
    def test(self) -> Described:
        return self.splits.test

    @property
    def data_hash(self) -> str:
        return self.splits.data_hash

    @property
    def dim(self) -> int:
        """Numbers of a vector of the space."""
        return self.enrichment.dim(self.teacher.dim)

    def system(self, seed: int, state: Mapping[str, Tensor] | None = None) -> TextProjection:
        settings = self.settings
        torch.manual_seed(seed)
        # Of its own: adapters learn in it. In the precision of where it will learn, which moves it there.
        encoder = build_sentence_encoder(settings.encoder, usual_device()).cpu()
        return TextProjection(encoder, settings.head, settings.objective, dim=self.dim, state=state)

    def identity(self) -> dict[str, str]:
        return {
            "system": self.settings.system,
            "recipe": self.settings.recipe.id,
            "teacher": self.teacher.id,
            "space": self.enrichment.id,
            "encoder": self.encoder.id,
            "adapters": str(self.settings.encoder.lora),
            "data": self.data_hash,
            "head": self.settings.head.model_dump_json(),
        }


@dataclass(frozen=True)
class FrozenReader:
    """Reads with an encoder that does not learn: every text once, ever."""

    encoder: CachedTeacher

    def read(self, texts: Sequence[str]) -> tuple[Tensor, ...]:
        return (torch.from_numpy(self.encoder.embed(texts)),)


@dataclass(frozen=True)
class LearningReader:
    """Reads for an encoder that learns: tokens, which it turns into vectors itself."""

    encoder: SentenceEncoder

    def read(self, texts: Sequence[str]) -> tuple[Tensor, ...]:
        return self.encoder.tokens(texts, queries=True)
