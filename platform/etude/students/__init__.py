"""Small networks that learn. A new architecture is one file and one line in `BACKBONES`."""

import math
from collections.abc import Callable
from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from etude.config import Section
from etude.students.blocks import Backbone
from etude.students.convnet import convnet
from etude.students.head import ProjectionHead
from etude.students.mobilenet import mobilenet

__all__ = ["BACKBONES", "Student", "StudentConfig", "build_student"]

BACKBONES: dict[str, Callable[[float], Backbone]] = {
    "mobilenet": mobilenet,
    "convnet": convnet,
}

InputMap = Literal["natural_log", "none"]


class StudentConfig(Section):
    """Which network learns, and how large it is."""

    name: Literal["mobilenet", "convnet"] = "mobilenet"
    width: float = Field(0.4, ge=0.1, le=4.0, description="scale of every layer's channels; mn04 is 0.4")
    frame_stride: int = Field(
        1,
        ge=1,
        le=8,
        description="frames averaged into one: 2 is EfficientAT's hop of 20 ms, for half",
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="in the projection head")
    input_map: InputMap = Field(
        "natural_log",
        description="natural_log: decibels to (ln power + 4.5) / 5, as EfficientAT's weights expect",
    )


class Student(nn.Module):
    """Mel spectrograms in decibels [b, n_mels, n_frames] to embeddings [b, dim]."""

    def __init__(
        self, backbone: Backbone, head: ProjectionHead, input_map: InputMap, frame_stride: int = 1
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.input_map = input_map
        self.frame_stride = frame_stride

    def forward(self, mel_db: Tensor) -> Tensor:
        """Embeddings [b, dim], of length 1 if the head normalises."""
        mel = natural_log(mel_db) if self.input_map == "natural_log" else mel_db
        if self.frame_stride > 1:
            mel = functional.avg_pool1d(mel, self.frame_stride)
        embedding: Tensor = self.head(self.backbone(mel))
        return embedding


def natural_log(mel_db: Tensor) -> Tensor:
    """Decibels to the range that EfficientAT trains on, (ln power + 4.5) / 5: facts/audiomuse.md, d."""
    return mel_db * (math.log(10) / 50) + 0.9


def build_student(config: StudentConfig, dim: int, normalize: bool) -> Student:
    """A new student; `torch.manual_seed` before it decides its weights."""
    backbone = BACKBONES[config.name](config.width)
    head = ProjectionHead(backbone.n_features, dim, dropout=config.dropout, normalize=normalize)
    return Student(backbone, head, config.input_map, config.frame_stride)
