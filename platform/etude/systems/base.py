"""What the training loop and the export know of a system."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from etude.evaluation.figures import Figures


@dataclass(frozen=True)
class ExportSpec:
    """One ONNX file: a module, an example of every input by name, and what comes out.

    The first axis of every input and of the output is the batch; the examples hold a batch of two.
    """

    name: str  # file name without .onnx
    module: nn.Module
    inputs: Mapping[str, Tensor]
    output_name: str = "embedding"
    batch_axis: str = "batch"


class TrainingData(Protocol):
    """What a run learns from: batches as a pure function of the seed, the epoch and the world's size.

    Each rank takes its share of the same global batches, in the same order.
    """

    def steps(self, batch_size: int) -> int:
        """Batches an epoch."""
        ...

    def batches(
        self, batch_size: int, *, seed: int, epoch: int, rank: int = 0, world_size: int = 1
    ) -> Iterator[Any]:
        """This rank's share of every global batch of an epoch; a batch has `.to(device)`."""
        ...

    def target_statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean [dim] and standard deviation [dim] of the teacher's vectors."""
        ...


class System(Protocol):
    """A model and its objective, trained as one."""

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every loss term that `losses` may return."""
        ...

    def start_at(self, data: Any) -> None:
        """Begin at the teacher's mean and spread in the `TrainingData` instead of at nothing."""
        ...

    def train_head_only(self) -> None:
        """From now on only the projection head learns; all else keeps its weights and batch statistics."""
        ...

    def compile_student(self) -> None:
        """Let `torch.compile` speed up the student; names of parameters stay."""
        ...

    def reset_logit_scale(self) -> None:
        """Put a learned logit scale back to where it starts. Raises UserError if there is none."""
        ...

    def rate_of(self, parameter: str) -> float:
        """What the learning rate is multiplied by for the parameter of this name."""
        ...

    def losses(self, batch: Any, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Named loss terms, each a scalar; with a generator, of the augmented batch."""
        ...

    def evaluate(self, dataset: Any, batch_size: int) -> Figures:
        """Figures on a whole held-out dataset."""
        ...

    def exports(self) -> Sequence[ExportSpec]:
        """What a user of the trained system needs, one entry per ONNX file."""
        ...

    def __call__(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """`losses`, through the module's call, as data-parallel wrappers want it."""
        ...


def part_of(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The state dict of a system's submodule, from the system's."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
