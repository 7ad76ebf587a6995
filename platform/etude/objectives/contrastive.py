"""The contrastive term: music and the texts that describe it lie closer than music and other texts."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid, normalize
from torch.utils.checkpoint import checkpoint

from etude.config import Section
from etude.ranks import gather, world_size

_BIAS = -10.0  # where SigLIP starts (arXiv:2303.15343, 3.2): most pairs of a batch do not belong together
_ROWS = 512  # of the matrix of all cosines that are held at a time: 8 MB in a batch of 4,096


class ContrastiveConfig(Section):
    """How music and text are contrasted. The temperature to start with: facts/audiomuse.md, seed 000."""

    form: Literal["infonce", "decoupled", "sigmoid"] = Field(
        "infonce",
        description="softmax over the batch; the same over what does not belong together alone (DCL, "
        "arXiv:2110.06848); or SigLIP's sigmoid of every pair",
    )
    temperature: float = Field(0.07, gt=0, description="cosines are divided by it; at the start if learned")
    learned: bool = Field(True, description="the temperature moves with the weights, and the sigmoid's bias")
    min_temperature: float = Field(0.01, gt=0, description="bound of a learned one (CLIP, arXiv:2103.00020)")
    max_temperature: float = Field(1.0, gt=0, description="bound of a learned one")
    bias: float = Field(_BIAS, description="added to the sigmoid form's logits; at the start if learned")
    chunk: int | None = Field(
        None,
        ge=2,
        description="items encoded at a time, for batches larger than memory; a third more time. Batch norm "
        "then has the statistics of a chunk",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "ContrastiveConfig":
        low, high = self.min_temperature, self.max_temperature
        if self.learned and low >= high:
            raise ValueError(f"min_temperature ({low}) must be below max_temperature ({high})")
        if self.learned and not low <= self.temperature <= high:
            raise ValueError(
                f"temperature ({self.temperature}) must lie between min_temperature ({low}) and "
                f"max_temperature ({high})"
            )
        if self.form != "sigmoid" and self.bias != _BIAS:
            raise ValueError("bias belongs to the sigmoid form: leave it out, or set form to sigmoid")
        return self


class Contrast(nn.Module):
    """The contrastive loss of pairs, with its temperature and bias.

    `logit_scale` is the logarithm of 1 / temperature and a scalar, so that weight decay leaves it alone. It
    counts as the nearer bound where it lies beyond one, and there a gradient that would lead further out is
    stopped, but none that leads back: a plain clamp would stop both, and that of a sigmoid would vanish. The
    optimiser's momentum carries it past a bound by a few steps, which the first gradients inwards undo.

    With several ranks the loss, in training mode, is that of the pairs of all of them: every rank gathers all
    vectors and computes the same loss. Its gradient comes back to each vector once from every rank, so
    `world_size` times, and after data-parallel averaging, which divides by `world_size`, an encoder has the
    gradient of one worker with the whole batch. `logit_scale` and `bias` have it on every rank already, and
    averaging equals leaves it. So no factor stands here: without averaging one would be missing.
    """

    logit_scale: Tensor
    bias: Tensor | None

    def __init__(self, config: ContrastiveConfig) -> None:
        super().__init__()
        self._config = config
        self._hold("logit_scale")
        if config.form == "sigmoid":
            self._hold("bias")
        else:
            self.bias = None
        self.reset()

    def _hold(self, name: str) -> None:
        if self._config.learned:
            self.register_parameter(name, nn.Parameter(torch.empty(())))
        else:
            self.register_buffer(name, torch.empty(()), persistent=False)

    def reset(self) -> None:
        """Back to the temperature and the bias of the configuration."""
        self.logit_scale.data.fill_(-math.log(self._config.temperature))
        if self.bias is not None:
            self.bias.data.fill_(self._config.bias)

    def scale(self) -> Tensor:
        """1 / temperature, a scalar."""
        if not self._config.learned:
            return self.logit_scale.float().exp()
        low, high = -math.log(self._config.max_temperature), -math.log(self._config.min_temperature)
        held: Tensor = _Held.apply(self.logit_scale.float(), low, high)  # type: ignore[no-untyped-call]
        return held.exp()

    def forward(
        self, music_BD: Tensor, text_BD: Tensor, track_B: Tensor, caption_B: Tensor | None = None
    ) -> Tensor:
        """The loss, a scalar in float32 whatever the inputs and the autocast.

        Row i of `text_BD` describes row i of `music_BD`; lengths do not matter. `track_B` and `caption_B`,
        [b] int64, number what is one track and one caption, and mean the same on all ranks: what shares
        either belongs together too. Least is, for infonce, the mean of ln(texts that belong to an item),
        which is 0 where each has one, and 0 for sigmoid. Decoupled may be negative: never below the mean of
        ln(texts that do not belong to an item) - 2 / temperature, and what belongs to everything counts 0.
        """
        with torch.autocast(music_BD.device.type, enabled=False):
            # One exchange, so that nothing of its gradient comes between those of the encoders.
            pair_BE = torch.cat([music_BD.float(), text_BD.float()], dim=1)
            id_BK = torch.stack([track_B] if caption_B is None else [track_B, caption_B], dim=1)
            if self.training and world_size() > 1:
                pair_BE, id_BK = gather(pair_BE), gather(id_BK)
            music, text = (normalize(x, dim=1) for x in pair_BE.chunk(2, dim=1))
            if self._config.form == "sigmoid":
                return self._by_rows(_sigmoid, music, text, id_BK)
            row_losses = _decoupled if self._config.form == "decoupled" else _infonce
            both = self._by_rows(row_losses, music, text, id_BK) + self._by_rows(
                row_losses, text, music, id_BK
            )
            return both / 2

    def _by_rows(
        self, row_losses: Callable[..., Tensor], this_BD: Tensor, other_BD: Tensor, id_BK: Tensor
    ) -> Tensor:
        """Mean loss of the rows of all cosines, of which only some rows are held at a time."""
        losses = []
        for start in range(0, len(this_BD), _ROWS):
            rows = slice(start, start + _ROWS)
            inputs = this_BD[rows], other_BD, id_BK[rows], id_BK, self.scale(), self.bias
            few = len(this_BD) <= _ROWS
            losses.append(
                row_losses(*inputs) if few else checkpoint(row_losses, *inputs, use_reentrant=False)
            )
        return torch.cat(losses).mean()


def _infonce(
    this_RD: Tensor, other_BD: Tensor, id_RK: Tensor, id_BK: Tensor, scale: Tensor, _bias: None
) -> Tensor:
    """Cross entropy [r] with what belongs together, in equal shares, as the target."""
    logit_RB = scale * (this_RD @ other_BD.T)
    together_RB = _together(id_RK, id_BK)
    wanted_R = (together_RB * logit_RB).sum(dim=1) / together_RB.sum(dim=1)
    return logit_RB.logsumexp(dim=1) - wanted_R


def _decoupled(
    this_RD: Tensor, other_BD: Tensor, id_RK: Tensor, id_BK: Tensor, scale: Tensor, _bias: None
) -> Tensor:
    """Cross entropy [r] again, with what belongs together left out of the denominator (arXiv:2110.06848)."""
    logit_RB = scale * (this_RD @ other_BD.T)
    together_RB = _together(id_RK, id_BK)
    wanted_R = (together_RB * logit_RB).sum(dim=1) / together_RB.sum(dim=1)
    # A row to which everything belongs has nothing to be told from. It keeps its logits, whose sum is finite.
    contrasted_R = ~together_RB.all(dim=1)
    apart_RB = logit_RB.masked_fill(together_RB & contrasted_R[:, None], -math.inf)
    return contrasted_R * (apart_RB.logsumexp(dim=1) - wanted_R)


def _sigmoid(
    this_RD: Tensor, other_BD: Tensor, id_RK: Tensor, id_BK: Tensor, scale: Tensor, bias: Tensor
) -> Tensor:
    """Every pair a yes or a no, summed over the row [r], as SigLIP does."""
    logit_RB = scale * (this_RD @ other_BD.T) + bias.float()
    sign_RB = _together(id_RK, id_BK).float() * 2 - 1
    return -logsigmoid(sign_RB * logit_RB).sum(dim=1)


def _together(id_RK: Tensor, id_BK: Tensor) -> Tensor:
    """Which pairs [r, b] have one of their ids in common."""
    return (id_RK[:, None, :] == id_BK[None, :, :]).any(dim=2)


class _Held(torch.autograd.Function):
    """A value between two bounds, whose gradient stops only where a step along it would lead outwards."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(value)
        ctx.bounds = low, high
        return value.clamp(low, high)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (value,) = ctx.saved_tensors
        low, high = ctx.bounds
        outwards = ((value >= high) & (gradient < 0)) | ((value <= low) & (gradient > 0))
        return gradient.masked_fill(outwards, 0.0), None, None
