"""The MobileNets are those that EfficientAT publishes, at every width."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from etude.students.blocks import Backbone, scaled
from etude.students.convnet import convnet
from etude.students.cost import count
from etude.students.mobilenet import InvertedResidual, MobileNet, mobilenet

# Width, millions of parameters with 527 classes, billions of MACs on 128 x 1000: the authors' README.
PUBLISHED = [
    (0.4, 0.983, 0.11),
    (0.5, 1.43, 0.16),
    (1.0, 4.88, 0.54),
    (2.0, 17.91, 2.06),
    (3.0, 39.09, 4.55),
    (4.0, 68.43, 8.03),
]


def _without_data(width: float, n_classes: int | None = None) -> MobileNet:
    with torch.device("meta"):
        return mobilenet(width, n_classes)


@pytest.mark.parametrize(("width", "million_parameters", "billion_macs"), PUBLISHED)
def test_costs_what_the_published_table_says(
    width: float, million_parameters: float, billion_macs: float
) -> None:
    cost = count(_without_data(width, 527), torch.empty(1, 128, 1000))
    assert cost.parameters / 1e6 == pytest.approx(million_parameters, abs=0.006)
    assert cost.macs / 1e9 == pytest.approx(billion_macs, abs=0.006)


def test_names_and_shapes_are_those_of_the_published_weights() -> None:
    shapes = {name: tuple(value.shape) for name, value in _without_data(1.0, 527).state_dict().items()}
    assert len(shapes) == 312  # as in the authors' mn10
    expected = {
        "features.0.0.weight": (16, 1, 3, 3),
        "features.0.1.running_var": (16,),
        "features.1.block.0.0.weight": (16, 1, 3, 3),  # the first block does not widen
        "features.1.block.1.0.weight": (16, 16, 1, 1),
        "features.2.block.0.0.weight": (64, 16, 1, 1),
        "features.2.block.1.0.weight": (64, 1, 3, 3),
        "features.2.block.2.0.weight": (24, 64, 1, 1),
        "features.4.block.1.0.weight": (72, 1, 5, 5),
        "features.4.block.2.conc_se_layers.0.fc1.weight": (24, 72),
        "features.4.block.2.conc_se_layers.0.fc2.bias": (72,),
        "features.4.block.3.1.num_batches_tracked": (),
        "features.15.block.2.conc_se_layers.0.fc1.weight": (240, 960),
        "features.15.block.3.0.weight": (160, 960, 1, 1),
        "features.16.0.weight": (960, 160, 1, 1),
        "features.16.1.bias": (960,),
        "classifier.2.weight": (1280, 960),
        "classifier.5.bias": (527,),
    }
    assert {name: shapes.get(name) for name in expected} == expected


def test_narrowest_published_width_widens_later() -> None:
    """mn01 has 8 channels in its first five layers, so its second and third block do not widen."""
    network = _without_data(0.1)
    blocks = [layer for layer in network.features if isinstance(layer, InvertedResidual)]
    assert [len(block.block) for block in blocks[:3]] == [2, 2, 2]
    assert network.n_features == 96


@pytest.mark.parametrize("n_classes", [None, 527])
def test_any_length_and_height_gives_one_row_a_segment(n_classes: int | None) -> None:
    network = mobilenet(0.1, n_classes).eval()
    for n_mels, n_frames in ((128, 1001), (64, 500), (96, 187)):
        out = network(torch.randn(2, n_mels, n_frames))
        assert out.shape == (2, n_classes or network.n_features)


def test_memory_order_changes_nothing() -> None:
    network = mobilenet(0.2).eval()
    mel = torch.randn(3, 128, 201)
    with torch.no_grad():
        plain = network.features(mel.unsqueeze(1).contiguous()).mean(dim=(2, 3))
        torch.testing.assert_close(network(mel), plain, rtol=1e-4, atol=1e-6)
        maps = network.features(mel.unsqueeze(-1).permute(0, 3, 1, 2))
    assert maps.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("build", [mobilenet, convnet])
def test_what_training_sees_shows_in_evaluation_within_thirty_steps(
    build: Callable[[float], Backbone],
) -> None:
    torch.manual_seed(0)
    network = build(0.2)
    mel = 3 + 2 * torch.randn(16, 128, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _ in range(30):
            in_training = network.train()(mel)
        difference = network.eval()(mel) - in_training
    # Deep maps are small, and a running variance is n / (n - 1) times the one used in training.
    assert difference.norm() < 0.15 * in_training.norm()


@given(st.integers(1, 2000), st.floats(0.1, 4.0))
def test_scaled_channels_are_multiples_of_eight_near_the_product(channels: int, width: float) -> None:
    result = scaled(channels, width)
    assert result % 8 == 0
    assert result >= 8
    assert result >= 0.9 * channels * width
    assert result <= max(8, channels * width + 8)


@given(st.floats(0.1, 4.0), st.floats(0.0, 1.0))
def test_wider_never_has_fewer_channels(width: float, more: float) -> None:
    assert all(scaled(c, width + more) >= scaled(c, width) for c in (16, 24, 40, 80, 112, 160, 960))
