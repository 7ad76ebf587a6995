"""Which network learns."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from etude.config import Section

InputMap = Literal["natural_log", "none"]
Architecture = Literal["mobilenet", "dynamic_mobilenet", "tinyclap", "convnet"]
PUBLISHED = ("mobilenet", "dynamic_mobilenet")  # the architectures that EfficientAT trained


class StudentConfig(Section):
    """Which network learns, how large it is, and what it starts from."""

    name: Architecture = "mobilenet"
    width: float = Field(0.4, ge=0.1, le=4.0, description="scale of every layer's channels; mn04 is 0.4")
    frame_stride: int = Field(
        1,
        ge=1,
        le=8,
        description="frames averaged into one: 2 is EfficientAT's hop of 20 ms, for half",
    )
    head: Literal["projection", "linear"] = Field(
        "projection", description="two maps and a norm, for tinyclap its seed's; or seed 1's single map"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="in the projection head")
    input_map: InputMap = Field(
        "natural_log",
        description="natural_log: decibels to (ln power + 4.5) / 5, as EfficientAT's weights expect",
    )
    weights: Path | None = Field(
        None,
        description="EfficientAT's published weights to start from, a .pt file: mn04_as..., dymn10_as...",
    )
    specialist: Path | None = Field(
        None,
        description="best.pt of a trained student, which stays as it is: the network named here learns what "
        "to add to its embeddings",
    )
    recompute_activations: bool = Field(
        False, description="train in less memory and a third more time: blocks are computed twice"
    )

    @field_validator("weights", "specialist")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return path and path.expanduser().absolute()  # workers run in folders of their own

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.weights and self.name not in PUBLISHED:
            raise ValueError(
                f"weights are published for {' and '.join(PUBLISHED)} only, not for {self.name}: "
                "leave student.weights out or choose one of these"
            )
        if self.head == "linear" and (self.specialist or self.name == "tinyclap"):
            whose = "what is added to a specialist" if self.specialist else "tinyclap"
            raise ValueError(f"{whose} has a head of its own: leave head at projection")
        return self
