"""An encoder of spectrograms and its head, as one network."""

import math
from typing import Protocol, cast

from torch import Tensor, nn
from torch.nn import functional

from etude.students.blocks import Backbone
from etude.students.config import InputMap


class Head(Protocol):
    """From a backbone's features [b, n_features] to the teacher's space [b, dim]."""

    def start_at(self, mean_D: Tensor, std_D: Tensor) -> None:
        """Give the untrained head the teacher's mean and standard deviation in every dimension."""
        ...


class Student(nn.Module):
    """Mel spectrograms in decibels [b, n_mels, n_frames] to embeddings [b, dim]."""

    def __init__(
        self, backbone: Backbone, head: nn.Module, input_map: InputMap, frame_stride: int = 1
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.input_map = input_map
        self.frame_stride = frame_stride
        self.backbone_is_frozen = False

    def forward(self, mel_db: Tensor) -> Tensor:
        """Embeddings [b, dim], of length 1 if the head normalises."""
        embedding: Tensor = self.head(self.features(mel_db))
        return embedding

    def features(self, mel_db: Tensor) -> Tensor:
        """What the head takes, [b, n_features]."""
        mel = natural_log(mel_db) if self.input_map == "natural_log" else mel_db
        if self.frame_stride > 1:
            mel = functional.avg_pool1d(mel, self.frame_stride)
        features: Tensor = self.backbone(mel)
        return features

    def start_at(self, mean_D: Tensor, std_D: Tensor) -> None:
        """Begin at the teacher's mean and spread [dim]. Raises ValueError if a shape is another."""
        cast(Head, self.head).start_at(mean_D, std_D)

    def freeze_backbone(self) -> None:
        """From now on only the head learns, and the backbone's batch statistics stay as they are."""
        self.backbone_is_frozen = True
        self.backbone.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Student":
        """Training mode for what learns; what is frozen stays in evaluation mode."""
        super().train(mode)
        if self.backbone_is_frozen:
            self.backbone.eval()
        return self


def natural_log(mel_db: Tensor) -> Tensor:
    """Decibels to the range that EfficientAT trains on, (ln power + 4.5) / 5: facts/audiomuse.md, d."""
    return mel_db * (math.log(10) / 50) + 0.9
