"""The hybrid of seed 2: three convolution stages, then two transformer layers over what they leave.

With its head (`BatchNormHead`, 512 dimensions) it has the 2,100,704 parameters that facts/audiomuse.md
derives for the documented model. What the seed leaves open is chosen so: convolutions without bias, a linear
map with bias from 128 channels to the hidden 256, feed-forward layers of 1024, no norm after the last layer,
and positions without parameters. The seed names Microsoft's TinyCLAP, which is another network.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from etude.students.blocks import Backbone, as_image, batch_norm, conv, scaled

CHANNELS = (32, 64, 128)
HIDDEN = 256
N_LAYERS = 2
N_HEADS = 4
EXPANSION = 4  # of a feed-forward layer


class Attention(nn.Module):
    """Multi-head self-attention over a whole sequence."""

    def __init__(self, n_hidden: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(n_hidden, 3 * n_hidden)
        self.out = nn.Linear(n_hidden, n_hidden)

    def macs(self, output: Tensor) -> int:
        """Multiply-accumulates of the two products beside the linear maps: scores, and their mixtures."""
        return 2 * output.numel() * output.shape[1]

    def forward(self, tokens_BSH: Tensor) -> Tensor:
        """[b, s, hidden] to the same shape."""
        heads = self.qkv(tokens_BSH).unflatten(2, (3, N_HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Layer(nn.Module):
    """Attention, then a feed-forward net, each normalised before and added to its input."""

    def __init__(self, n_hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(n_hidden)
        self.attention = Attention(n_hidden)
        self.norm2 = nn.LayerNorm(n_hidden)
        self.linear1 = nn.Linear(n_hidden, EXPANSION * n_hidden)
        self.linear2 = nn.Linear(EXPANSION * n_hidden, n_hidden)

    def forward(self, tokens_BSH: Tensor) -> Tensor:
        """[b, s, hidden] to the same shape."""
        tokens = tokens_BSH + self.attention(self.norm1(tokens_BSH))
        out: Tensor = tokens + self.linear2(functional.gelu(self.linear1(self.norm2(tokens))))
        return out


class TinyClap(Backbone):
    """Mel spectrograms [b, n_mels, n_frames], of at least 11 x 11, to features [b, n_features].

    From 128 x 1001 the layers see 4 x 31 places. `n_features` is 256 at width 1.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        n_channels = 1
        for number, channels in enumerate(CHANNELS, start=1):
            n_out = scaled(channels, width)
            stage = [conv(n_channels, n_out, 3, stride=2), batch_norm(n_out), nn.GELU()]
            stages.append(nn.Sequential(*stage, *([] if number == len(CHANNELS) else [nn.MaxPool2d(2)])))
            n_channels = n_out
        self.stages = nn.ModuleList(stages)
        self.n_features = scaled(HIDDEN, width)
        self.project = nn.Linear(n_channels, self.n_features)
        self.layers = nn.ModuleList(Layer(self.n_features) for _ in range(N_LAYERS))

    def forward(self, mel_BMT: Tensor) -> Tensor:
        """The mean over all places."""
        places_BMTC = self.run(self.stages, as_image(mel_BMT)).permute(0, 2, 3, 1)
        tokens_BMTH = self.project(places_BMTC)
        n_mels, n_frames = tokens_BMTH.shape[1:3]
        tokens_BMTH = tokens_BMTH + positions(n_mels, n_frames, self.n_features).to(tokens_BMTH)
        return self.run(self.layers, tokens_BMTH.flatten(1, 2)).mean(dim=1)


def tinyclap(width: float) -> TinyClap:
    """The network with its channels scaled by `width`."""
    return TinyClap(width)


def positions(n_mels: int, n_frames: int, n_hidden: int) -> Tensor:
    """Sinusoids [n_mels, n_frames, n_hidden], one half for the frequency, the other for the time.

    They have no parameters, so that they are there for any length (arXiv 1706.03762, section 3.5).
    """
    frequency = _sinusoids(n_mels, n_hidden // 2)[:, None].expand(-1, n_frames, -1)
    time = _sinusoids(n_frames, n_hidden // 2).expand(n_mels, -1, -1)
    return torch.cat([frequency, time], dim=2)


def _sinusoids(n: int, n_hidden: int) -> Tensor:
    rates = torch.exp(torch.arange(0, n_hidden, 2) * (-math.log(10000) / n_hidden))
    angles = torch.arange(n)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
