"""An emotion network without batch norm: its work goes into the weights beside it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from etude.students.emotion import DenseBlock, EmotionNetwork, LstmBlock
from etude.students.emotion_layers import folded_plan


@dataclass(frozen=True)
class _Affine:
    """scale * (x - centre) + offset, float64 [n] each."""

    scale: Tensor
    centre: Tensor
    offset: Tensor


@torch.no_grad()
def folded(network: EmotionNetwork, *, standardisation: bool) -> EmotionNetwork:
    """The same function as `network.eval()`, on the CPU, of dense and LSTM layers only; heads are left out.

    A batch norm comes after its layer's activation, which no weight of that layer can express: it goes into
    the next layer. With `standardisation` that of the input goes into the first layer likewise. Where it may
    stay it is better off: means far above their spreads cost a sum of many products some of its digits.
    """
    plain = EmotionNetwork(folded_plan(network.plan, standardisation=standardisation))
    before: _Affine | None = None
    if network.plan.standardised and standardisation:
        before = _standardisation(network)
    elif network.plan.standardised:
        plain.standardise_by(network.mean.cpu(), network.spread.cpu())
    for old, new in zip(network.blocks, plain.blocks, strict=True):
        new.load_state_dict({k: v for k, v in old.state_dict().items() if not k.startswith("norm.")})
        if before is not None:
            _absorb(new, before)
        norm = old.norm if isinstance(old, DenseBlock) else None
        before = None if norm is None else _batch_norm(norm)
    assert before is None, "nothing follows the last layer"
    return plain.eval()


def _absorb(block: nn.Module, before: _Affine) -> None:
    """Let a layer take x where it took the affine map of x.

    The bias takes in what the centre gives with the weights as they are once rounded to float32, so that
    their rounding counts only for how far x is from the centre.
    """
    if isinstance(block, DenseBlock):
        weight, bias = block.linear.weight, block.linear.bias
    else:
        assert isinstance(block, LstmBlock)
        weight, _, bias, _ = block.weights
    offset = bias.double() + weight.double() @ before.offset
    weight.copy_(weight.double() * before.scale)
    bias.copy_(offset - weight.double() @ before.centre)


def _standardisation(network: EmotionNetwork) -> _Affine:
    mean, spread = network.mean.cpu().double(), network.spread.cpu().double()
    return _Affine(1 / spread, mean, torch.zeros_like(mean))


def _batch_norm(norm: nn.BatchNorm1d) -> _Affine:
    assert norm.running_mean is not None and norm.running_var is not None
    weight, bias, mean, variance = (
        value.cpu().double() for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    return _Affine(weight / (variance + norm.eps).sqrt(), mean, bias)
