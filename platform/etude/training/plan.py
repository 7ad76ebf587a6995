"""How a student is trained: epochs in one or two stages, learning rates, and what a run starts from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from etude.config import Section
from etude.training.schedule import PlateauConfig

Reset = Literal["optimizer", "schedule", "logit_scale", "weight_decay"]


@dataclass(frozen=True)
class Stage:
    """A part of a run with one optimiser and one schedule."""

    number: int  # 1: all layers; 2: the projection head alone
    epochs: int
    learning_rate: float  # at its peak
    warmup_epochs: float

    @property
    def head_only(self) -> bool:
        """Whether all but the projection head is frozen."""
        return self.number == 2


class TrainingConfig(Section):
    """How a student is trained."""

    epochs: int = Field(24, ge=1, description="of stage 1, in which all layers learn")
    stage2_epochs: int = Field(
        0, ge=0, description="of stage 2: the projection head alone, all else frozen, batch statistics too"
    )
    batch_size: int = Field(16, ge=2, description="items a step, over all workers together")
    accumulate: int = Field(1, ge=1, description="parts of a batch that go through memory one by one")
    learning_rate: float = Field(3e-3, gt=0, description="AdamW, at its peak")
    stage2_learning_rate: float = Field(1e-3, gt=0, description="the same for stage 2, without warm-up")
    weight_decay: float = Field(0.02, ge=0, description="on matrices and kernels only")
    warmup_epochs: float = Field(1.0, ge=0)
    schedule: Literal["cosine", "plateau"] = "cosine"
    floor: float = Field(0.01, ge=0, lt=1, description="least share of the peak learning rate")
    plateau: PlateauConfig = PlateauConfig()
    patience: int | None = Field(
        None, ge=1, description="a stage ends after so many epochs without a better score; none: never early"
    )
    grad_clip: float = Field(5.0, gt=0, description="largest norm of all gradients together")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 on a GPU with it"
    )
    compile: bool = Field(False, description="torch.compile the student; it takes a minute, and pays on GPUs")
    start_from: str | None = Field(
        None, description="a checkpoint of another run to go on from, until `epochs` in all; a file, or s3://"
    )
    reset: tuple[Reset, ...] = Field(
        (), description="what of start_from begins anew; weight_decay: the configured one, not the old run's"
    )

    @field_validator("start_from", mode="before")
    @classmethod
    def _absolute(cls, path: Any) -> Any:
        text = str(path) if isinstance(path, Path) else path
        there = isinstance(text, str) and "://" not in text
        return str(Path(text).expanduser().absolute()) if there else text

    @model_validator(mode="after")
    def _fits(self) -> "TrainingConfig":
        if self.batch_size % self.accumulate or self.batch_size // self.accumulate < 2:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be divided into {self.accumulate} equal parts of at "
                "least 2"
            )
        if self.reset and self.start_from is None:
            raise ValueError("reset needs start_from: it tells what of that checkpoint begins anew")
        return self

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that have epochs."""
        first = Stage(1, self.epochs, self.learning_rate, self.warmup_epochs)
        second = Stage(2, self.stage2_epochs, self.stage2_learning_rate, 0.0)
        return (first, second) if second.epochs else (first,)

    @property
    def most_epochs(self) -> int:
        """Epochs of all stages if none ends early."""
        return self.epochs + self.stage2_epochs
