"""MobileNetV3-Large for spectrograms as EfficientAT publishes it (arXiv 2211.04772): mn04, mn10, mn40...

The number in a name is ten times the width. Modules are named and shaped as the authors' are, so that
their weights fit by name; the layer table is theirs too (fschmid56/EfficientAT, commit a425fdc).
"""

from typing import NamedTuple

from torch import Tensor, nn

from etude.students.blocks import Backbone, as_image, batch_norm, conv, pool, scaled

SQUEEZE = 4  # channels of a block per channel of its squeeze-excitation bottleneck


class Block(NamedTuple):
    """One inverted residual, its channels as at width 1."""

    kernel: int
    expanded: int
    out: int
    squeeze: bool
    activation: type[nn.ReLU] | type[nn.Hardswish]
    stride: int


BLOCKS = (
    Block(3, 16, 16, False, nn.ReLU, 1),
    Block(3, 64, 24, False, nn.ReLU, 2),
    Block(3, 72, 24, False, nn.ReLU, 1),
    Block(5, 72, 40, True, nn.ReLU, 2),
    Block(5, 120, 40, True, nn.ReLU, 1),
    Block(5, 120, 40, True, nn.ReLU, 1),
    Block(3, 240, 80, False, nn.Hardswish, 2),
    Block(3, 200, 80, False, nn.Hardswish, 1),
    Block(3, 184, 80, False, nn.Hardswish, 1),
    Block(3, 184, 80, False, nn.Hardswish, 1),
    Block(3, 480, 112, True, nn.Hardswish, 1),
    Block(3, 672, 112, True, nn.Hardswish, 1),
    Block(5, 672, 160, True, nn.Hardswish, 2),
    Block(5, 960, 160, True, nn.Hardswish, 1),
    Block(5, 960, 160, True, nn.Hardswish, 1),
)


class SqueezeExcitation(nn.Module):
    """Weighs channels by what their means say together (arXiv 1709.01507)."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        n_squeezed = scaled(n_channels // SQUEEZE, 1)
        self.fc1 = nn.Linear(n_channels, n_squeezed)
        self.fc2 = nn.Linear(n_squeezed, n_channels)

    def forward(self, maps_BCMT: Tensor) -> Tensor:
        """[b, c, m, t] to the same shape."""
        weights_BC: Tensor = self.fc2(self.fc1(pool(maps_BCMT)).relu()).sigmoid()
        return maps_BCMT * weights_BC[:, :, None, None]


class ConcurrentSqueezeExcitation(nn.Module):
    """The authors' place for one squeeze-excitation an axis; the published models have that of channels."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.conc_se_layers = nn.ModuleList([SqueezeExcitation(n_channels)])

    def forward(self, maps_BCMT: Tensor) -> Tensor:
        """[b, c, m, t] to the same shape."""
        (over_channels,) = self.conc_se_layers
        weighed: Tensor = over_channels(maps_BCMT)
        return weighed


class InvertedResidual(nn.Module):
    """Widen, filter each channel, weigh the channels, narrow; added to its input where shapes allow."""

    def __init__(self, n_in: int, block: Block, width: float) -> None:
        super().__init__()
        n_wide, n_out = scaled(block.expanded, width), scaled(block.out, width)
        layers: list[nn.Module] = []
        if n_wide != n_in:
            layers.append(unit(conv(n_in, n_wide, 1), block.activation))
        depthwise = conv(n_wide, n_wide, block.kernel, stride=block.stride, groups=n_wide)
        layers.append(unit(depthwise, block.activation))
        if block.squeeze:
            layers.append(ConcurrentSqueezeExcitation(n_wide))
        layers.append(unit(conv(n_wide, n_out, 1), None))
        self.block = nn.Sequential(*layers)
        self.is_residual = block.stride == 1 and n_in == n_out

    def forward(self, maps_BCMT: Tensor) -> Tensor:
        """[b, c_in, m, t] to [b, c_out, m / stride, t / stride], sizes rounded up."""
        out: Tensor = self.block(maps_BCMT)
        return out + maps_BCMT if self.is_residual else out


class MobileNet(Backbone):
    """Mel spectrograms [b, n_mels, n_frames] to features [b, n_features], or to logits [b, n_classes].

    Sizes are free: from 128 x 1001 the last maps are 4 x 32. `n_features` is 960 at width 1.
    """

    def __init__(self, width: float, n_classes: int | None = None) -> None:
        super().__init__()
        n_channels = scaled(16, width)
        layers: list[nn.Module] = [unit(conv(1, n_channels, 3, stride=2), nn.Hardswish)]
        for block in BLOCKS:
            layers.append(InvertedResidual(n_channels, block, width))
            n_channels = scaled(block.out, width)
        self.n_features = 6 * n_channels
        layers.append(unit(conv(n_channels, self.n_features, 1), nn.Hardswish))
        self.features = nn.Sequential(*layers)
        self.classifier = None if n_classes is None else classifier(self.n_features, width, n_classes)
        self.apply(_initialise)

    def forward(self, mel_BMT: Tensor) -> Tensor:
        """Features, or logits if there is a classifier."""
        maps = self.run(self.features, as_image(mel_BMT))
        if self.classifier is None:
            return pool(maps)
        logits: Tensor = self.classifier(maps)
        return logits


def mobilenet(width: float, n_classes: int | None = None) -> MobileNet:
    """The network of a width, bare as a student needs it, or with the published classifier (527 classes)."""
    return MobileNet(width, n_classes)


def unit(convolution: nn.Conv2d, activation: type[nn.ReLU] | type[nn.Hardswish] | None) -> nn.Sequential:
    """A convolution, its batch norm and its activation, if there is one."""
    norm = batch_norm(convolution.out_channels)
    return nn.Sequential(convolution, norm, *([] if activation is None else [activation(inplace=True)]))


def classifier(n_features: int, width: float, n_classes: int) -> nn.Sequential:
    """The published head: maps [b, n_features, m, t] to logits [b, n_classes]."""
    n_hidden = scaled(1280, width)
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(n_features, n_hidden),
        nn.Hardswish(inplace=True),
        nn.Dropout(0.2),
        nn.Linear(n_hidden, n_classes),
    )


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
