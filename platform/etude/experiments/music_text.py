"""The whole configuration of a music-text experiment (seed 1), and what is built from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from etude.audio.augment import AugmentConfig
from etude.data.music_text import Captioned, MusicTextSplits, add_captions
from etude.data.sampling import SamplingConfig, TrainingSegments
from etude.data.text import CachedTeacher
from etude.experiments.captioned import CaptionedExperiment
from etude.experiments.library import compiled_or_recomputed, taught_by_segment
from etude.students import StudentConfig, build_student
from etude.students.cost import Cost, count
from etude.students.text import build_text_student
from etude.students.text_encoder import TextStudentConfig
from etude.students.tokenizer import TokenizerConfig, train_tokenizer
from etude.students.tokens import Tokens, load_tokenizer
from etude.systems.base import part_of
from etude.systems.music_text import MusicText, MusicTextObjective
from etude.teachers import StoredConfig, Teacher, build_teacher
from etude.teachers.text import TextTeacher, TextTeacherConfig, build_text_teacher

# Loss term by kind of teacher; of stored vectors it is the table that tells.
_TERMS = {"msd_musicnn": "musicnn", "clap": "clap", "laion_clap": "clap",
          "embedding": "musicnn", "clap_embedding": "clap"}  # fmt: skip


class MusicTextExperiment(CaptionedExperiment):
    """Every key of a music-text experiment. Files: --config FILE.yaml. Environment: ETUDE_DIM=128."""

    system: ClassVar[str] = "music-text"
    prepared_by: ClassVar[str] = "jobs/train_music_text.py"
    judged_by: ClassVar[str] = "text_to_music_mrr"
    shared: ClassVar[frozenset[str]] = CaptionedExperiment.shared | {
        "tokenizer", "learned_tokenizer", "text_teacher",
    }  # fmt: skip
    # The data's hash stands for the captions and the tokenizer: not what they cost, or where they lie.
    shaping: ClassVar[frozenset[str]] = CaptionedExperiment.shaping | {
        "text_teacher", "music", "text", "dim", "objective", "augment", "sampling",
    }  # fmt: skip

    text_teacher: TextTeacherConfig | None = Field(
        None, description="a model whose vectors of captions are learned too: clap_text, or minilm"
    )
    tokenizer: Path | None = Field(
        None, description="a Hugging Face tokenizer.json; without one, one is learned from training captions"
    )
    learned_tokenizer: TokenizerConfig = TokenizerConfig()
    music: StudentConfig = StudentConfig()
    text: TextStudentConfig = TextStudentConfig(name="mean")
    dim: int = Field(256, ge=8, le=2048, description="numbers of a vector of the common space")
    objective: MusicTextObjective = MusicTextObjective()
    augment: AugmentConfig = AugmentConfig()
    sampling: SamplingConfig = SamplingConfig()

    @field_validator("tokenizer")
    @classmethod
    def _absolute_tokenizer(cls, path: Path | None) -> Path | None:
        return path and path.expanduser().absolute()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        taught_by_segment(self.teachers)
        if self.sampling.strategy != "segments":
            raise ValueError("captions are compared with segments: leave sampling.strategy at segments")
        if self.augment.mixup_alpha or self.augment.targets == "recomputed":
            raise ValueError(
                "a mix has no caption, and targets come from the store here: leave augment.mixup_alpha at 0 "
                "and augment.targets at cached"
            )
        self.objective.resolved(self.terms)
        compiled_or_recomputed(self.training.compile, self.music, "music")
        return self

    @property
    def terms(self) -> list[str]:
        """The loss term of each teacher, in their order, and `text` if one reads."""
        kinds = [one.table if isinstance(one, StoredConfig) else one.name for one in self.teachers]
        terms = [_TERMS[kind] for kind in kinds]
        if len(set(terms)) < len(terms):
            raise ValueError(f"the teachers {' and '.join(kinds)} say the same: leave one out")
        return [*terms, "text"] if self.text_teacher else terms

    def pinned(self) -> Self:
        """The settings with a tokenizer's file, learned now if none is named, and stored vectors as they are.

        Raises UserError if that needs captions or a library that were not prepared.
        """
        pinned = super().pinned()
        file = pinned.tokenizer or pinned._learn_tokens()
        if file.exists() and pinned.storage:  # workers on other nodes do not see this machine's files
            file = pinned._keep(load_tokenizer(file, pinned.text.max_tokens))
        elif not file.exists() and pinned.place.exists(f"tokenizers/{file.name}"):
            file = pinned._kept(file.name)  # a learned one, and home or storage has another place now
        return pinned.model_copy(update={"tokenizer": file})

    def tokens(self) -> Tokens:
        """The text encoder's tokenizer. Raises UserError if its file cannot be read."""
        assert self.tokenizer, "pinned settings name a tokenizer"
        if not self.tokenizer.exists():
            content = self.place.read(f"tokenizers/{self.tokenizer.name}")
            if content is not None:
                return Tokens(content, self.text.max_tokens)
        return load_tokenizer(self.tokenizer, self.text.max_tokens)

    def cost(self, state: Mapping[str, Tensor] | None = None) -> Cost:
        """Both encoders together, for a segment and a caption of the greatest length."""
        of_music = state and part_of(state, "music")
        music = build_student(self.music, self.dim, normalize=True, state=of_music)
        vocabulary = self.tokens().vocabulary if self.tokenizer else self.learned_tokenizer.vocabulary
        text = build_text_student(self.text, vocabulary=vocabulary, dim=self.dim, normalize=True)
        ids = torch.ones(1, self.text.max_tokens, dtype=torch.int64)
        heard = count(music, torch.empty(1, self.recipe.n_mels, self.recipe.n_frames))
        read = count(text, ids, ids)
        return Cost(heard.parameters + read.parameters, heard.macs + read.macs)

    def open(self) -> "MusicTextStudy":
        """Open the prepared library with its captions. Raises UserError if either was not prepared."""
        teachers = tuple(build_teacher(one) for one in self.teachers)
        reader = None if self.text_teacher is None else build_text_teacher(self.text_teacher)
        cached = None if reader is None else CachedTeacher(reader, self.cache / "text")
        splits, captions = self.captioned_splits()
        captioned = add_captions(splits, captions, self.tokens(), cached)
        return MusicTextStudy(self, teachers, reader, captioned)

    def _learn_tokens(self) -> Path:
        """Learn a tokenizer from the captions of the training set, and keep it in storage."""
        splits, captions = self.captioned_splits()
        content = train_tokenizer(
            [text for row in splits.train for text in captions[row.track.id]], self.learned_tokenizer
        )
        return self._keep(Tokens(content, self.text.max_tokens))

    def _keep(self, tokens: Tokens) -> Path:
        """Put a tokenizer into storage, named by its contents."""
        name, place = f"{tokens.id}.json", self.place.at("tokenizers")
        if not place.exists(name):
            place.write(name, tokens.content)
        return self._kept(name)

    def _kept(self, name: str) -> Path:
        """The path that stands for a tokenizer in storage; of one on S3 it is no file, and `tokens` asks."""
        place = self.place.at("tokenizers")
        return Path(place.address(name)) if place.local else self.home / "tokenizers" / name


@dataclass(frozen=True)
class MusicTextStudy:
    """A captioned library with its teachers: a `Study`."""

    settings: MusicTextExperiment
    teachers: tuple[Teacher, ...]
    text_teacher: TextTeacher | None
    splits: MusicTextSplits

    @cached_property
    def training(self) -> TrainingSegments:
        """Segments of the training set, each with one of its track's captions."""
        captioned = self.splits.train
        return TrainingSegments(captioned.dataset, self.settings.sampling, captioned.batch)

    @property
    def validation(self) -> Captioned:
        return self.splits.validation

    @property
    def test(self) -> Captioned:
        return self.splits.test

    @property
    def data_hash(self) -> str:
        return self.splits.data_hash

    def system(self, seed: int, state: Mapping[str, Tensor] | None = None) -> MusicText:
        settings = self.settings
        dims = [teacher.dim for teacher in self.teachers]
        if self.text_teacher:
            dims.append(self.text_teacher.dim)
        torch.manual_seed(seed)
        return MusicText(
            settings.music,
            settings.text,
            settings.objective,
            settings.augment,
            settings.recipe,
            dim=settings.dim,
            vocabulary=self.test.tokens.vocabulary,
            teachers=dict(zip(settings.terms, dims, strict=True)),
            state=state,
        )

    def identity(self) -> dict[str, str]:
        settings = self.settings
        text_teacher = {"text_teacher": self.text_teacher.id} if self.text_teacher else {}
        return {
            "system": settings.system,
            "recipe": settings.recipe.id,
            "teacher": " and ".join(teacher.id for teacher in self.teachers),
            **text_teacher,
            "tokenizer": self.test.tokens.id,
            "data": self.data_hash,
            "music": settings.music.model_dump_json(exclude={"recompute_activations"}),
            "text": settings.text.model_dump_json(),
        }
