"""What a network costs, counted rather than timed."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Cost:
    """Size and work of one network."""

    parameters: int
    macs: int  # multiply-accumulates of convolutions and linear layers, for one segment


def count(module: nn.Module, n_mels: int, n_frames: int) -> Cost:
    """Count a module that takes mel spectrograms [b, n_mels, n_frames]; the module stays as it is.

    Normalisation, activations and pooling are left out, as in the tables of the literature.
    """
    # A copy without data: nothing is computed, only shapes go through.
    shapes = copy.deepcopy(module).to("meta").eval()
    macs = 0

    def add(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        nonlocal macs
        macs += output.numel() * _inputs_per_output(layer)

    for layer in shapes.modules():
        if isinstance(layer, (*CONVOLUTIONS, nn.Linear)):
            layer.register_forward_hook(add)
    with torch.no_grad():
        shapes(torch.empty(1, n_mels, n_frames, device="meta"))
    return Cost(parameters=sum(p.numel() for p in module.parameters()), macs=macs)


def _inputs_per_output(layer: nn.Module) -> int:
    if isinstance(layer, nn.Linear):
        return layer.in_features
    assert isinstance(layer, CONVOLUTIONS)
    return layer.in_channels // layer.groups * math.prod(layer.kernel_size)
