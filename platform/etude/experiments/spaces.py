"""The audio spaces by seed 3's names: one, or all of them from one decode."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from etude.experiments.text_projection import TextProjectionExperiment
from etude.teachers import MusiCNNConfig, TeacherConfig

SPACES = {"latent": "music2latent", "muq": "muq", "mert": "mert", "musicnn": "msd_musicnn"}


class OverSpaces(TextProjectionExperiment):
    """Text projections into one space or all."""

    space: Literal["latent", "muq", "mert", "musicnn", "all"] | None = Field(
        None, description="short for teacher.name; all: one projection into each, prepared together"
    )

    # A factory: a default would lay its own name under what was given without one.
    teacher: TeacherConfig = Field(default_factory=MusiCNNConfig, discriminator="name")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        space = data.get("space") if isinstance(data, dict) else None
        if space in SPACES:
            return data | {"teacher": _teacher(data, SPACES[space])}
        if space != "all":
            return data
        first, *others = SPACES.values()
        prepare = data.get("prepare") or {}
        also = prepare.get("also", ()) if isinstance(prepare, dict) else None
        if not isinstance(also, list | tuple) or not all(isinstance(one, dict) for one in also):
            return data  # what is wrong with it is told where its type is checked
        named = {one.get("name") for one in also}
        also = [*also, *({"name": name} for name in others if name not in named)]
        return data | {"teacher": _teacher(data, first), "prepare": prepare | {"also": also}}

    def each(self) -> list[Self]:
        """The settings of every single space: of all teachers with `all`, else of the one."""
        alone = self.prepare.model_copy(update={"also": ()})
        teachers = self.teachers if self.space == "all" else (self.teacher,)
        return [self.model_copy(update={"teacher": one, "prepare": alone}) for one in teachers]

    @property
    def space_name(self) -> str:
        """Seed 3's name of the space, or the teacher's where the seed has none."""
        names = {teacher: space for space, teacher in SPACES.items()}
        return names.get(self.teacher.name, self.teacher.name)


def _teacher(data: dict[str, Any], name: str) -> dict[str, Any]:
    given = data.get("teacher") or {}
    if not isinstance(given, dict):
        raise ValueError(f"teacher is a section with keys, not {given!r}: set teacher.name")
    if given.get("name", name) != name:
        raise ValueError(
            f"space {data['space']} is the teacher {name}, and teacher.name is {given['name']}: leave one out"
        )
    return {"name": name} | given
