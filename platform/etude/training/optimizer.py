"""AdamW over what a system trains: who has weight decay, and which share of the learning rate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Group:
    """Parameters that a step treats alike."""

    parameters: tuple[nn.Parameter, ...]
    decayed: bool  # weight decay is for matrices and kernels, not for biases and norms
    rate: float  # what the learning rate is multiplied by


def parameter_groups(module: nn.Module, rate_of: Callable[[str], float] = lambda _: 1.0) -> list[Group]:
    """All that is trained: for every rate what is decayed, and then the others."""
    trained = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    rates = dict.fromkeys(rate_of(name) for name, _ in trained)
    return [
        Group(
            tuple(each for name, each in trained if rate_of(name) == rate and (each.ndim > 1) == decayed),
            decayed,
            rate,
        )
        for rate in rates
        for decayed in (True, False)
    ]


def adamw(groups: Sequence[Group], learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """One of torch's groups for each, in order. A step sets their learning rates, see `Group.rate`."""
    kinds = [
        {"params": list(group.parameters), "weight_decay": weight_decay if group.decayed else 0.0}
        for group in groups
    ]
    return torch.optim.AdamW(kinds, lr=learning_rate)
