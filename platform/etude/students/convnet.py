"""The plain convolutional network of seed 1: what a student must beat to be worth its design."""

from torch import Tensor, nn

from etude.students.blocks import Backbone, as_image, batch_norm, conv, pool, scaled

CHANNELS = (32, 64, 128)
LAYERS = 4  # of one block: convolution, norm, pooling, activation


class ConvNet(Backbone):
    """Three 3 x 3 convolutions, each normalised, rectified and halved in size; [b, 128] at width 1."""

    def __init__(self, width: float) -> None:
        super().__init__()
        n_channels = 1
        layers: list[nn.Module] = []
        for channels in CHANNELS:
            n_out = scaled(channels, width)
            # The seed rectifies before it pools. The two commute, and this way there is a quarter to rectify.
            layers += [
                conv(n_channels, n_out, 3),
                batch_norm(n_out),
                nn.MaxPool2d(2),
                nn.ReLU(inplace=True),
            ]
            n_channels = n_out
        self.features = nn.Sequential(*layers)
        self.n_features = n_channels

    def forward(self, mel_BMT: Tensor) -> Tensor:
        """Mel spectrograms [b, n_mels, n_frames] of at least 8 x 8 to features [b, n_features]."""
        blocks = (self.features[start : start + LAYERS] for start in range(0, len(self.features), LAYERS))
        return pool(self.run(blocks, as_image(mel_BMT)))


def convnet(width: float) -> ConvNet:
    """The network with its channels scaled by `width`."""
    return ConvNet(width)
