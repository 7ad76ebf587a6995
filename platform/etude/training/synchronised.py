"""Batch norm over all ranks, on any device: torch's own SyncBatchNorm needs CUDA.

Two ranks with half a batch each then learn what one rank learns from the whole of it.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from etude.ranks import summed, world_size


class SynchronisedBatchNorm1d(nn.BatchNorm1d):
    """`nn.BatchNorm1d` whose statistics in training are those of all ranks; alone, it is the same."""

    def forward(self, x: Tensor) -> Tensor:
        """[b, c] or [b, c, t], on every rank at once; b may differ."""
        self._check_input_dim(x)
        return _normalised(self, x) if self.training and world_size() > 1 else super().forward(x)


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose statistics in training are those of all ranks; alone, it is the same."""

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, h, w], on every rank at once; b, h and w may differ."""
        self._check_input_dim(x)
        return _normalised(self, x) if self.training and world_size() > 1 else super().forward(x)


_SYNCHRONISED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: SynchronisedBatchNorm1d,
    nn.BatchNorm2d: SynchronisedBatchNorm2d,
}


def synchronise(module: nn.Module) -> None:
    """From now on all batch norms in `module` have the statistics of all ranks while they train.

    They stay the same objects with the same parameters and buffers, so checkpoints and optimisers made before
    or after fit. Raises ValueError for a kind of batch norm that the students here do not have.
    """
    for norm in module.modules():
        if not isinstance(norm, _BatchNorm) or type(norm) in _SYNCHRONISED.values():
            continue
        if type(norm) not in _SYNCHRONISED:
            raise ValueError(f"cannot synchronise {type(norm).__name__}: only BatchNorm1d and BatchNorm2d")
        norm.__class__ = _SYNCHRONISED[type(norm)]  # type: ignore[assignment]


def _normalised(norm: _BatchNorm, x: Tensor) -> Tensor:
    """`x` normalised by all ranks' mean and variance, which its running statistics follow.

    In float32 whatever comes in; what goes out has the type of `x`.
    """
    axes = [axis for axis in range(x.ndim) if axis != 1]
    wide = (1, -1, *[1] * (x.ndim - 2))  # a value a channel, beside x
    with torch.autocast(x.device.type, enabled=False):
        full = x.float()
        n_mine = full.new_tensor([full.numel() / full.shape[1]])
        sums = summed(torch.cat([full.sum(dim=axes), n_mine]))  # the count with the sums: one exchange
        n_values = sums[-1].detach()
        mean_C = sums[:-1] / n_values
        centred = full - mean_C.reshape(wide)
        variance_C = summed(centred.square().sum(dim=axes)) / n_values
        _follow(norm, mean_C.detach(), variance_C.detach() * n_values / (n_values - 1))
        factor_C = (variance_C + norm.eps).rsqrt()
        if norm.affine:
            factor_C = factor_C * norm.weight
        out = centred * factor_C.reshape(wide)
        out = out + norm.bias.reshape(wide) if norm.affine else out
    return out.to(x.dtype)


def _follow(norm: _BatchNorm, mean_C: Tensor, variance_C: Tensor) -> None:
    """Move the running statistics as torch does; `blocks.statistics_kept` may have taken the count away."""
    if norm.running_mean is None or norm.running_var is None:
        return
    momentum = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if momentum is None:
            momentum = 1 / float(norm.num_batches_tracked)
    with torch.no_grad():
        norm.running_mean.lerp_(mean_C, momentum or 0.0)
        norm.running_var.lerp_(variance_C, momentum or 0.0)
