"""Batches larger than memory: items are encoded a few at a time, and again for their gradients."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import get_device_states, set_device_states

from etude.students.blocks import statistics_kept


def encode_in_chunks(encoder: nn.Module, inputs: tuple[Tensor, ...], chunk: int | None) -> Tensor:
    """What `encoder(*inputs)` gives [b, dim], in the memory that about `chunk` items take.

    The cached gradients of GradCache (arXiv:2101.06983): the forward pass keeps embeddings only, and the
    backward pass computes each chunk a second time with what its gradients need. A loss may compare all
    items; loss and gradients are those of the same chunks with everything kept, dropout included, which draws
    the same in both passes. It costs a forward pass more. Inputs are data [b, ...], no gradient reaches them.

    Items do not meet in an encoder, except in batch norm: its statistics, in training, are those of a chunk
    and not of the batch, and the running ones move once a chunk. Chunks have as equal sizes as can be, none
    above `chunk`. With None, or no more items than a chunk has, this is the plain call.
    """
    n_items = len(inputs[0])
    if chunk is None or n_items <= chunk:
        whole: Tensor = encoder(*inputs)
        return whole
    assert not any(values.requires_grad for values in inputs), "no gradient reaches the inputs of chunks"
    learned = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    embedding: Tensor = _Cached.apply(encoder, -(-n_items // chunk), inputs, *learned)  # type: ignore[no-untyped-call]
    return embedding


class _Cached(torch.autograd.Function):
    """One node for all chunks. A checkpoint for each would leave its nodes between the activations that come
    and go, and with them holes in the heap: 1 GB of a batch of 4,096. It also gives each parameter one
    gradient, as data-parallel wrappers want it."""

    @staticmethod
    def forward(
        ctx: Any, encoder: nn.Module, n_chunks: int, inputs: tuple[Tensor, ...], *learned: Tensor
    ) -> Tensor:
        ctx.encoder, ctx.n_chunks, ctx.learned = encoder, n_chunks, learned
        ctx.save_for_backward(*inputs)
        ctx.device_type = inputs[0].device.type
        ctx.autocast = torch.is_autocast_enabled(ctx.device_type), torch.get_autocast_dtype(ctx.device_type)
        # The backward pass takes the chunks in the same order, so this is where all its draws begin.
        ctx.draws, ctx.device_draws = torch.get_rng_state(), get_device_states(*inputs)
        embedding_BD: Tensor | None = None
        for rows, part in _chunks(inputs, n_chunks):
            some = _encoded(ctx, part)
            if embedding_BD is None:
                embedding_BD = some.new_empty(len(inputs[0]), *some.shape[1:])
            embedding_BD[rows] = some
        assert embedding_BD is not None
        return embedding_BD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BD: Tensor) -> tuple[Tensor | None, ...]:
        totals: list[Tensor | None] = [None] * len(ctx.learned)
        devices, states = ctx.device_draws
        with torch.random.fork_rng(devices), statistics_kept(ctx.encoder):
            torch.set_rng_state(ctx.draws)
            set_device_states(devices, states, device_type=ctx.device_type)
            for rows, part in _chunks(ctx.saved_tensors, ctx.n_chunks):
                with torch.enable_grad():
                    some = _encoded(ctx, part)
                found = torch.autograd.grad(some, ctx.learned, gradient_BD[rows], allow_unused=True)
                for index, (total, gradient) in enumerate(zip(totals, found, strict=True)):
                    if gradient is not None:
                        totals[index] = gradient.clone() if total is None else total.add_(gradient)
        return None, None, None, *totals


def _encoded(ctx: Any, part: tuple[Tensor, ...]) -> Tensor:
    """A chunk under the autocast of the call; what is cast without a gradient must not be kept for later."""
    enabled, dtype = ctx.autocast
    with torch.autocast(ctx.device_type, dtype, enabled, cache_enabled=False):
        embedding: Tensor = ctx.encoder(*part)
    return embedding


def _chunks(inputs: tuple[Tensor, ...], n_chunks: int) -> Iterator[tuple[slice, tuple[Tensor, ...]]]:
    start = 0
    for part in zip(*(values.tensor_split(n_chunks) for values in inputs), strict=True):
        yield slice(start, start + len(part[0])), part
        start += len(part[0])
