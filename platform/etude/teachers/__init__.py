"""Frozen models that give targets. A new one is a file, and a line in `TeacherConfig` and `build_teacher`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from etude.config import Section
from etude.teachers.anchors import AnchorSource
from etude.teachers.base import Targets, Teacher
from etude.teachers.clap import Clap
from etude.teachers.laion_clap import LaionClap
from etude.teachers.mert import Mert
from etude.teachers.muq import MuQ
from etude.teachers.music2latent import Music2Latent
from etude.teachers.musicnn import MusiCNN
from etude.teachers.paths import LocalPath
from etude.teachers.spaces import AudioSpaceConfig, MertConfig, MuQConfig, Music2LatentConfig
from etude.teachers.stored import StoredConfig, StoredTeacher

__all__ = [
    "AudioSpaceConfig",
    "ClapConfig",
    "LaionClapConfig",
    "MertConfig",
    "MuQConfig",
    "MusiCNNConfig",
    "Music2LatentConfig",
    "StoredConfig",
    "Targets",
    "Teacher",
    "TeacherConfig",
    "build_teacher",
]


class MusiCNNConfig(Section):
    """MusiCNN, trained on the Million Song Dataset or on MagnaTagATune."""

    name: Literal["msd_musicnn", "mtt_musicnn"] = "msd_musicnn"


class ClapConfig(Section):
    """CLAP's audio encoder, from an ONNX file."""

    name: Literal["clap"] = "clap"
    model: LocalPath = Field(description="ONNX file: mel_spectrogram [b, 1, frames, 64] to [b, 512]")
    batch_size: int = Field(1, ge=1, description="segments at once; answers may depend on the batch")
    text_model: LocalPath | None = Field(
        None, description="ONNX file of the same CLAP's text encoder, for the semantic loss"
    )
    tokenizer: LocalPath | None = Field(None, description="its tokenizer.json, or the folder that holds it")
    anchors: LocalPath | None = Field(
        None, description="JSON {category: [terms]} of the semantic loss; Étude's own if not set"
    )

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.text_model is None) != (self.tokenizer is None):
            raise ValueError("text_model and tokenizer go together: set both or neither")
        if self.anchors is not None and self.text_model is None:
            raise ValueError("anchors are terms for the text encoder: set text_model and tokenizer too")
        return self

    @property
    def anchor_source(self) -> AnchorSource | None:
        """Where the anchors come from, if there are to be any."""
        if self.text_model is None or self.tokenizer is None:
            return None
        return AnchorSource(self.anchors, self.text_model, self.tokenizer)


class LaionClapConfig(Section):
    """CLAP's audio encoder, from LAION's checkpoint."""

    name: Literal["laion_clap"] = "laion_clap"
    checkpoint: LocalPath = Field(description="music_audioset_epoch_15_esc_90.14.pt")


TeacherConfig = Annotated[
    MusiCNNConfig | ClapConfig | LaionClapConfig | MuQConfig | MertConfig | Music2LatentConfig | StoredConfig,
    Field(discriminator="name"),
]


def build_teacher(config: TeacherConfig, device: str = "cpu") -> Teacher:
    """Load a teacher, to listen on a PyTorch device. Raises UserError if what it needs is missing."""
    match config:
        case MusiCNNConfig(name="msd_musicnn"):
            return MusiCNN("MSD_musicnn", device=device)
        case MusiCNNConfig():
            return MusiCNN("MTT_musicnn", device=device)
        case ClapConfig():
            return Clap(config.model, config.batch_size, device, config.anchor_source)
        case LaionClapConfig():
            return LaionClap(config.checkpoint, device)
        case MuQConfig():
            return MuQ(config.weights, config.batch_size, device)
        case MertConfig():
            return Mert(config.weights, config.batch_size, device)
        case Music2LatentConfig():
            return Music2Latent(config.weights, config.batch_size, device)
        case StoredConfig():
            return StoredTeacher(config)
