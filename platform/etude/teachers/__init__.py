"""Frozen models that give targets. A new one is a file, and a line in `TeacherConfig` and `build_teacher`."""

from typing import Annotated, Literal

from pydantic import Field

from etude.config import Section
from etude.teachers.base import Targets, Teacher
from etude.teachers.musicnn import MusiCNN
from etude.teachers.stored import StoredConfig, StoredTeacher

__all__ = ["MusiCNNConfig", "StoredConfig", "Targets", "Teacher", "TeacherConfig", "build_teacher"]


class MusiCNNConfig(Section):
    """MusiCNN, trained on the Million Song Dataset or on MagnaTagATune."""

    name: Literal["msd_musicnn", "mtt_musicnn"] = "msd_musicnn"


TeacherConfig = Annotated[MusiCNNConfig | StoredConfig, Field(discriminator="name")]


def build_teacher(config: TeacherConfig, device: str = "cpu") -> Teacher:
    """Load a teacher, to listen on a PyTorch device. Raises UserError if what it needs is missing."""
    match config:
        case MusiCNNConfig(name="msd_musicnn"):
            return MusiCNN("MSD_musicnn", device=device)
        case MusiCNNConfig():
            return MusiCNN("MTT_musicnn", device=device)
        case StoredConfig():
            return StoredTeacher(config)
