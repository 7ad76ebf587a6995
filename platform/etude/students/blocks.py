"""What students' encoders are built from."""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class Backbone(nn.Module):
    """An encoder of mel spectrograms [b, n_mels, n_frames] whose features [b, n_features] a head takes."""

    n_features: int
    recompute_activations: bool = False

    def run(self, blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
        """`x` through `blocks` in turn.

        With `recompute_activations` what the gradient needs of a block is computed a second time, not kept:
        loss, gradients and running statistics are the same, only the input of every block stays in memory,
        and a training step takes about a third longer.
        """
        again = self.recompute_activations and self.training and torch.is_grad_enabled()
        for block in blocks:
            x = _forgetful(block, x) if again else block(x)
        return x


def _forgetful(block: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = checkpoint(
        block, x, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), statistics_kept(block))
    )
    return out


@contextlib.contextmanager
def statistics_kept(block: nn.Module) -> Iterator[None]:
    """The same batch goes through `block` once more: running statistics have seen it already."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.training]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        # Autograd wants to find the running statistics saved as before: they are updated, by nothing.
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, n_batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, n_batches


def as_image(mel_BMT: Tensor) -> Tensor:
    """The spectrogram as an image of one channel, [b, 1, n_mels, n_frames], without a copy.

    The channel axis is added last and then moved, so that the strides are those of channels-last memory.
    Convolutions pass that order on, and a training step on a CPU takes about half the time with it.
    """
    return mel_BMT.unsqueeze(-1).permute(0, 3, 1, 2)


def pool(maps_BCMT: Tensor) -> Tensor:
    """Mean over frequency and time, [b, c], whatever their sizes."""
    return maps_BCMT.mean(dim=(2, 3))


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, to the nearest multiple of 8, but never below 8 nor 10 % below the product.

    The rule of MobileNet (arXiv 1704.04861 and its reference code).
    """
    exact = channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * exact else rounded + 8


def conv(n_in: int, n_out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias, padded so that only `stride` changes the size."""
    return nn.Conv2d(n_in, n_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def batch_norm(n_channels: int) -> nn.BatchNorm2d:
    """Batch normalisation with EfficientAT's epsilon, its running statistics only a few steps old.

    The authors' momentum of 0.01 suits their 200 epochs of AudioSet. A running variance starts at 1, where
    their initial depthwise weights give as little as 0.001, and the weights move fast at first: in runs of
    hundreds of steps evaluation then never shows what was learnt. At 0.1 it does after about 90 steps, at
    0.3 after about 30, early enough for a sweep's first cut, with no loss at the end.
    """
    return nn.BatchNorm2d(n_channels, eps=0.001, momentum=0.3)
