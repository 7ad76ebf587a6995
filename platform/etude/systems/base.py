"""What the training loop and the export know of a system."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from etude.data.batches import Batch, Dataset
from etude.evaluation.metrics import Metrics


@dataclass(frozen=True)
class ExportSpec:
    """One ONNX file: a module, what goes in and what comes out. The first axis is the batch."""

    name: str  # file name without .onnx
    module: nn.Module
    input_name: str
    input_shape: tuple[int, ...]  # without the batch axis
    output_name: str


class System(Protocol):
    """A model and its objective, trained as one."""

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every loss term that `losses` may return."""
        ...

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named loss terms, each a scalar."""
        ...

    def evaluate(self, dataset: Dataset, batch_size: int) -> Metrics:
        """Figures on a whole held-out dataset."""
        ...

    def exports(self) -> Sequence[ExportSpec]:
        """What a user of the trained system needs, one entry per ONNX file."""
        ...


def parameters_with_decay(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters that weight decay is for (matrices and kernels), and the others (biases, norms)."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for parameter in _trained(module.parameters()):
        (decayed if parameter.ndim > 1 else free).append(parameter)
    return decayed, free


def _trained(parameters: Iterable[nn.Parameter]) -> Iterable[nn.Parameter]:
    return (parameter for parameter in parameters if parameter.requires_grad)
