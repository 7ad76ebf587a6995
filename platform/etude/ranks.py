"""What processes that train one student tell each other in the middle of a step, with gradients.

Both functions hand the sum over all ranks of what their results were asked for back to whoever put values in.
Where every rank computes the same loss from the results that sum is `world_size` times the gradient, and data
parallelism, which averages over ranks, divides it by `world_size` again: weights move as on one rank.
All ranks must call them in the same order.
"""

from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """Processes that train together; 1 where none have met."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def gather(mine: Tensor) -> Tensor:
    """The rows of all ranks [world_size * b, ...] in the order of ranks, from this rank's [b, ...].

    Every rank gives as many rows of the same shape.
    """
    if world_size() == 1:
        return mine
    n_rows = torch.tensor([len(mine), -len(mine)], device=mine.device)
    distributed.all_reduce(n_rows, distributed.ReduceOp.MAX)
    assert n_rows[0] == -n_rows[1], f"ranks hold from {-n_rows[1]} to {n_rows[0]} items: shares must be equal"
    gathered: Tensor = _Gathered.apply(mine)  # type: ignore[no-untyped-call]
    return gathered


def summed(mine: Tensor) -> Tensor:
    """The sum of all ranks' tensors, which have one shape."""
    if world_size() == 1:
        return mine
    total: Tensor = _Summed.apply(mine)  # type: ignore[no-untyped-call]
    return total


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: Tensor) -> Tensor:
        ctx.n_rows = len(mine)
        parts = [torch.empty_like(mine, memory_format=torch.contiguous_format) for _ in range(world_size())]
        distributed.all_gather(parts, mine.contiguous())
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = _sum(gradient)
        start = distributed.get_rank() * ctx.n_rows
        return total[start : start + ctx.n_rows]


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: Tensor) -> Tensor:
        return _sum(mine)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _sum(gradient)


def _sum(mine: Tensor) -> Tensor:
    total = mine.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total)
    return total
