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


TEACHERS: dict[str, Callable[[], Teacher]] = {
    "msd_musicnn": lambda: MusiCNN("MSD_musicnn"),
    "mtt_musicnn": lambda: MusiCNN("MTT_musicnn"),
}


def build_teacher(config: TeacherConfig) -> Teacher:
    """Load a teacher. Raises UserError if its files are missing or not the pinned ones."""
    return TEACHERS[config.name]()
