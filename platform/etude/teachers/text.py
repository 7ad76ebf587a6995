"""Frozen text encoders that give targets. A new one is a file, and a line here in both places."""

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from etude.config import Section
from etude.teachers.base import Frozen
from etude.teachers.clap_text import ClapText
from etude.teachers.minilm import MiniLM
from etude.teachers.paths import LocalPath

__all__ = [
    "ClapText",
    "ClapTextConfig",
    "MiniLM",
    "MiniLMConfig",
    "TextTeacher",
    "TextTeacherConfig",
    "build_text_teacher",
]


class TextTeacher(Frozen, Protocol):
    """A frozen model of texts."""

    def too_long(self, texts: Sequence[str]) -> list[int]:
        """Indices of the texts that are longer than the model takes."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [n, dim], each independent of the other texts.

        What is too long is cut with one warning; who must not accept that asks `too_long` before.
        """
        ...


class MiniLMConfig(Section):
    """all-MiniLM-L6-v2, a sentence encoder: real, and in a package."""

    name: Literal["minilm"] = "minilm"


class ClapTextConfig(Section):
    """CLAP's text encoder, from files."""

    name: Literal["clap_text"] = "clap_text"
    model: LocalPath = Field(description="ONNX file: input_ids, attention_mask [b, 77] to [b, 512]")
    tokenizer: LocalPath = Field(description="RoBERTa's tokenizer.json, or a folder that holds it")
    batch_size: int = Field(1, ge=1, description="texts that go through the network at once")


TextTeacherConfig = Annotated[MiniLMConfig | ClapTextConfig, Field(discriminator="name")]


def build_text_teacher(config: MiniLMConfig | ClapTextConfig, device: str = "cpu") -> TextTeacher:
    """Load a text teacher, to run on a PyTorch device. Raises UserError if what it needs is missing."""
    match config:
        case MiniLMConfig():
            return MiniLM(device=device)
        case ClapTextConfig():
            return ClapText(config.model, config.tokenizer, config.batch_size, device)
