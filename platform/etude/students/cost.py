"""What a network costs, counted rather than timed."""

import copy
import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@runtime_checkable
class Counted(Protocol):
    """A module that multiplies beside the convolutions and linear layers that it holds."""

    def macs(self, output: Tensor) -> int:
        """Those multiply-accumulates, for one call that returned `output`."""
        ...


@dataclass(frozen=True)
class Cost:
    """Size and work of one network."""

    parameters: int
    macs: int  # multiply-accumulates of convolutions, linear layers and attention, for one batch


def count(module: nn.Module, *inputs: Tensor) -> Cost:
    """Count a module for inputs of these shapes, a batch of one as a rule; the module stays as it is.

    Normalisation, activations and pooling are left out, as in the tables of the literature.
    """
    # A copy without data: nothing is computed, only shapes go through.
    shapes = copy.deepcopy(module).to("meta").eval()
    macs = 0

    def add(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        nonlocal macs
        if isinstance(layer, Counted):
            macs += layer.macs(output)
        else:
            macs += output.numel() * _inputs_per_output(layer)

    for layer in shapes.modules():
        if isinstance(layer, (*CONVOLUTIONS, nn.Linear, Counted)):
            layer.register_forward_hook(add)
    with torch.no_grad():
        shapes(*(each.to("meta") for each in inputs))
    return Cost(parameters=sum(p.numel() for p in module.parameters()), macs=macs)


def linear_macs(module: nn.Module) -> int:
    """Multiply-accumulates of a module's linear layers for one vector or token that goes through all."""
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))


def _inputs_per_output(layer: nn.Module) -> int:
    if isinstance(layer, nn.Linear):
        return layer.in_features
    assert isinstance(layer, CONVOLUTIONS)
    return layer.in_channels // layer.groups * math.prod(layer.kernel_size)
