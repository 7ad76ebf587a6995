"""Dynamic MobileNet as EfficientAT publishes it (arXiv 2310.15648): dymn04, dymn10, dymn20.

MobileNetV3's table of blocks, where every block first condenses its input into a context, and the context
decides the block's kernels, its activation, and how frequencies and times weigh. The number in a name is ten
times the width. Modules are named and shaped as the authors' are, so that their weights fit by name
(fschmid56/EfficientAT, commit a425fdc). The kernels' mixture is a softmax at temperature 1, where the
authors' AudioSet training ends.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from etude.students.blocks import Backbone, batch_norm, conv, pool, scaled
from etude.students.mobilenet import BLOCKS, Block, classifier, unit

N_KERNELS = 4  # that one dynamic convolution mixes
N_PIECES = 2  # linear maps of which a dynamic ReLU takes the larger
CONTEXT_RATIO = 4  # widened channels of a block per channel of its context
CONTEXT_MIN, CONTEXT_MAX = 32, 128  # channels of a context at width 1


class DynamicConv(nn.Module):
    """A convolution whose kernel is, for each item, a mixture of four that its context chooses.

    It is pointwise (kernel size 1, one group), or depthwise (as many groups as channels).
    """

    def __init__(
        self, n_in: int, n_out: int, n_context: int, kernel: int, *, stride: int = 1, depthwise: bool = False
    ) -> None:
        super().__init__()
        assert depthwise or (kernel == 1 and stride == 1)
        self.shape = (n_out, 1 if depthwise else n_in, kernel, kernel)
        self.stride = stride
        self.depthwise = depthwise
        self.residuals = nn.Sequential(nn.Linear(n_context, N_KERNELS))
        kernels = torch.empty(N_KERNELS, *self.shape)
        for each in kernels:
            nn.init.kaiming_normal_(each, mode="fan_out")
        self.weight = nn.Parameter(kernels.view(1, 1, N_KERNELS, -1))

    def macs(self, output: Tensor) -> int:
        """Multiply-accumulates of the convolution and of mixing the kernels for each item of the output."""
        _, inputs, height, width = self.shape
        return output.numel() * inputs * height * width + len(output) * self.weight.numel()

    def forward(self, maps_BCMT: Tensor, context_BH: Tensor) -> Tensor:
        """[b, c_in, m, t] to [b, c_out, m / stride, t / stride], sizes rounded up."""
        share_BK: Tensor = self.residuals(context_BH).softmax(dim=1)
        if self.depthwise and torch.compiler.is_exporting():
            return self._mixed_afterwards(maps_BCMT, share_BK)
        n_out, n_in, kernel, _ = self.shape
        weight = share_BK @ self.weight[0, 0]
        if not self.depthwise:
            out = weight.view(-1, n_out, n_in) @ maps_BCMT.flatten(2)
            return out.view(-1, n_out, *maps_BCMT.shape[2:])
        # Every item has kernels of its own: the batch becomes more channels of one item.
        n_batch = len(maps_BCMT)
        out = functional.conv2d(
            maps_BCMT.reshape(1, n_batch * n_out, *maps_BCMT.shape[2:]),
            weight.view(n_batch * n_out, 1, kernel, kernel),
            stride=self.stride,
            padding=kernel // 2,
            groups=n_batch * n_out,
        )
        return out.view(n_batch, n_out, *out.shape[2:])

    def _mixed_afterwards(self, maps_BCMT: Tensor, share_BK: Tensor) -> Tensor:
        """The same by linearity, with fixed kernels: ONNX has no convolution with as many groups as items."""
        n_out, _, kernel, _ = self.shape
        out = maps_BCMT.new_zeros(())
        for k, weight in enumerate(self.weight.view(N_KERNELS, *self.shape)):
            each = functional.conv2d(maps_BCMT, weight, stride=self.stride, padding=kernel // 2, groups=n_out)
            out = out + share_BK[:, k, None, None, None] * each
        return out


class DynamicReLU(nn.Module):
    """The larger of two linear maps per channel, whose slopes and offsets the context decides.

    arXiv 2003.10027, form B. At a context of 0 it is max(x, 0).
    """

    lambdas: Tensor
    init_v: Tensor

    def __init__(self, n_channels: int, n_context: int) -> None:
        super().__init__()
        self.coef_net = nn.Sequential(nn.Linear(n_context, 2 * N_PIECES * n_channels))
        # How far a coefficient may be from where it starts: first the slopes, then the offsets.
        self.register_buffer("lambdas", torch.tensor([1.0] * N_PIECES + [0.5] * N_PIECES))
        self.register_buffer("init_v", torch.tensor([1.0] + [0.0] * (2 * N_PIECES - 1)))

    def forward(self, maps_BCMT: Tensor, context_BH: Tensor) -> Tensor:
        """[b, c, m, t] to the same shape."""
        theta_BCP = (2 * self.coef_net(context_BH).sigmoid() - 1).unflatten(1, (-1, 2 * N_PIECES))
        coefficients = (theta_BCP * self.lambdas + self.init_v)[..., None, None].unbind(2)
        slopes, offsets = coefficients[:N_PIECES], coefficients[N_PIECES:]
        return torch.maximum(maps_BCMT * slopes[0] + offsets[0], maps_BCMT * slopes[1] + offsets[1])


class Context(nn.Module):
    """Condenses a block's input into a vector, and into a weight for every frequency and every time."""

    def __init__(self, n_in: int, n_context: int, n_wide: int, stride: int) -> None:
        super().__init__()
        self.joint_conv = conv(n_in, n_context, 1)
        self.joint_norm = batch_norm(n_context)
        self.conv_f = nn.Conv2d(n_context, n_wide, 1)
        self.conv_t = nn.Conv2d(n_context, n_wide, 1)
        self.stride = stride

    def forward(self, maps_BCMT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[b, c, m, t] to the context [b, h], and weights [b, wide, m', 1] and [b, wide, 1, t'].

        m' and t' are m and t divided by the stride, rounded up.
        """
        over_time, over_frequency = maps_BCMT.mean(dim=3), maps_BCMT.mean(dim=2)
        both = torch.cat([over_time, over_frequency], dim=2)[..., None]
        both = functional.hardswish(self.joint_norm(self.joint_conv(both)))
        n_mels = over_time.shape[2]
        weight_f = self.conv_f(self._shorter(both[:, :, :n_mels])).sigmoid()
        weight_t = self.conv_t(self._shorter(both[:, :, n_mels:])).sigmoid()
        return both.mean(dim=(2, 3)), weight_f, weight_t.transpose(2, 3)

    def _shorter(self, sequence_BHS1: Tensor) -> Tensor:
        if self.stride == 1:
            return sequence_BHS1
        return functional.avg_pool2d(sequence_BHS1, (3, 1), stride=(self.stride, 1), padding=(1, 0))


class DynamicBlock(nn.Module):
    """An inverted residual with dynamic convolutions, dynamic ReLU and coordinate attention."""

    def __init__(self, n_in: int, block: Block, width: float) -> None:
        super().__init__()
        n_wide, n_out = scaled(block.expanded, width), scaled(block.out, width)
        lowest, highest = scaled(CONTEXT_MIN, width), scaled(CONTEXT_MAX, width)
        n_context = min(max(scaled(n_wide // CONTEXT_RATIO, 1), lowest), highest)
        self.context_gen = Context(n_in, n_context, n_wide, block.stride)
        self.widens = n_wide != n_in
        if self.widens:
            self.exp_conv = DynamicConv(n_in, n_wide, n_context, 1)
            self.exp_norm = batch_norm(n_wide)
            self.exp_act = block.activation(inplace=True)
        self.depth_conv = DynamicConv(
            n_wide, n_wide, n_context, block.kernel, stride=block.stride, depthwise=True
        )
        self.depth_norm = batch_norm(n_wide)
        self.depth_act = DynamicReLU(n_wide, n_context)
        self.proj_conv = DynamicConv(n_wide, n_out, n_context, 1)
        self.proj_norm = batch_norm(n_out)
        self.is_residual = block.stride == 1 and n_in == n_out

    def forward(self, maps_BCMT: Tensor) -> Tensor:
        """[b, c_in, m, t] to [b, c_out, m / stride, t / stride], sizes rounded up."""
        context_BH, weight_f, weight_t = self.context_gen(maps_BCMT)
        out: Tensor = maps_BCMT
        if self.widens:
            out = self.exp_act(self.exp_norm(self.exp_conv(out, context_BH)))
        out = self.depth_act(self.depth_norm(self.depth_conv(out, context_BH)), context_BH)
        out = self.proj_norm(self.proj_conv(out * weight_f * weight_t, context_BH))
        return out + maps_BCMT if self.is_residual else out


class DynamicMobileNet(Backbone):
    """Mel spectrograms [b, n_mels, n_frames] to features [b, n_features], or to logits [b, n_classes].

    Sizes are free: from 128 x 1001 the last maps are 4 x 32. `n_features` is 960 at width 1.
    """

    def __init__(self, width: float, n_classes: int | None = None) -> None:
        super().__init__()
        widths = [scaled(16, width), *(scaled(block.out, width) for block in BLOCKS)]
        self.in_c = unit(conv(1, widths[0], 3, stride=2), nn.Hardswish)
        self.layers = nn.ModuleList(
            DynamicBlock(n_in, block, width) for n_in, block in zip(widths[:-1], BLOCKS, strict=True)
        )
        self.n_features = 6 * widths[-1]
        self.out_c = unit(conv(widths[-1], self.n_features, 1), nn.Hardswish)
        self.classifier = None if n_classes is None else classifier(self.n_features, width, n_classes)
        self.apply(_initialise)

    def forward(self, mel_BMT: Tensor) -> Tensor:
        """Features, or logits if there is a classifier."""
        # Not in channels-last order: a batch that becomes channels is a copy there.
        maps = self.run(itertools.chain([self.in_c], self.layers, [self.out_c]), mel_BMT.unsqueeze(1))
        if self.classifier is None:
            return pool(maps)
        logits: Tensor = self.classifier(maps)
        return logits


def dynamic_mobilenet(width: float, n_classes: int | None = None) -> DynamicMobileNet:
    """The network of a width, bare as a student needs it, or with the published classifier (527 classes)."""
    return DynamicMobileNet(width, n_classes)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
