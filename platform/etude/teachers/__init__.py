"""Frozen models that give targets. A new teacher is one file and one line in `TEACHERS`."""

from collections.abc import Callable
from typing import Literal

from etude.config import Section
from etude.teachers.base import Targets, Teacher
from etude.teachers.musicnn import MusiCNN

__all__ = ["Targets", "Teacher", "TeacherConfig", "build_teacher"]


class TeacherConfig(Section):
    """Which frozen model the student learns from."""

    name: Literal["msd_musicnn", "mtt_musicnn"] = "msd_musicnn"


TEACHERS: dict[str, Callable[[str], Teacher]] = {
    "msd_musicnn": lambda device: MusiCNN("MSD_musicnn", device=device),
    "mtt_musicnn": lambda device: MusiCNN("MTT_musicnn", device=device),
}


def build_teacher(config: TeacherConfig, device: str = "cpu") -> Teacher:
    """Load a teacher onto a PyTorch device. Raises UserError if its files are not the pinned ones."""
    return TEACHERS[config.name](device)
