"""The dynamic MobileNets are those that EfficientAT publishes, at every width."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from etude.export.onnx import export_onnx, run_onnx, session
from etude.students.cost import count
from etude.students.dynamic_mobilenet import (
    DynamicBlock,
    DynamicConv,
    DynamicMobileNet,
    DynamicReLU,
    dynamic_mobilenet,
)
from etude.students.mobilenet import Block
from etude.systems.base import ExportSpec

# Width, millions of parameters with 527 classes, billions of MACs on 128 x 1000: the authors' README.
PUBLISHED = [(0.4, 1.97, 0.12), (1.0, 10.57, 0.58), (2.0, 40.02, 2.2)]


def _without_data(width: float, n_classes: int | None = None) -> DynamicMobileNet:
    with torch.device("meta"):
        return dynamic_mobilenet(width, n_classes)


@pytest.mark.parametrize(("width", "million_parameters", "billion_macs"), PUBLISHED)
def test_costs_what_the_published_table_says(
    width: float, million_parameters: float, billion_macs: float
) -> None:
    network = _without_data(width, 527)
    cost = count(network, torch.empty(1, 128, 1000))
    # Unlike for the MobileNets, the table's figures include the running statistics of batch norm.
    statistics = sum(
        value.numel() for name, value in network.named_buffers() if name.endswith(("_mean", "_var"))
    )
    assert (cost.parameters + statistics) / 1e6 == pytest.approx(million_parameters, abs=0.0051)
    assert cost.macs / 1e9 == pytest.approx(billion_macs, rel=0.025)


def test_names_and_shapes_are_those_of_the_published_weights() -> None:
    shapes = {name: tuple(value.shape) for name, value in _without_data(1.0, 527).state_dict().items()}
    assert len(shapes) == 578  # as in the authors' dymn10
    expected = {
        "in_c.0.weight": (16, 1, 3, 3),
        "in_c.1.running_mean": (16,),
        "layers.0.depth_conv.weight": (1, 1, 4, 144),  # the first block does not widen
        "layers.0.depth_conv.residuals.0.weight": (4, 32),
        "layers.0.depth_act.coef_net.0.weight": (64, 32),
        "layers.0.depth_act.lambdas": (4,),
        "layers.0.depth_act.init_v": (4,),
        "layers.0.context_gen.joint_conv.weight": (32, 16, 1, 1),
        "layers.1.exp_conv.weight": (1, 1, 4, 1024),
        "layers.1.exp_norm.num_batches_tracked": (),
        "layers.14.exp_conv.residuals.0.bias": (4,),
        "layers.14.depth_conv.weight": (1, 1, 4, 24000),
        "layers.14.proj_conv.weight": (1, 1, 4, 153600),
        "layers.14.proj_norm.bias": (160,),
        "layers.14.context_gen.joint_norm.weight": (128,),
        "layers.14.context_gen.conv_f.bias": (960,),
        "layers.14.context_gen.conv_t.weight": (960, 128, 1, 1),
        "out_c.0.weight": (960, 160, 1, 1),
        "out_c.1.weight": (960,),
        "classifier.2.weight": (1280, 960),
        "classifier.5.bias": (527,),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    assert not any(name.startswith("layers.0.exp_") for name in shapes)


@pytest.mark.parametrize("n_classes", [None, 527])
def test_any_length_and_height_gives_one_row_a_segment(n_classes: int | None) -> None:
    network = dynamic_mobilenet(0.1, n_classes).eval()
    for n_mels, n_frames in ((128, 301), (64, 50), (97, 187)):
        out = network(torch.randn(1, n_mels, n_frames))
        assert out.shape == (1, n_classes or network.n_features)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_depthwise_convolution_mixes_kernels_for_each_item(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    layer = DynamicConv(6, 6, 5, kernel, stride=stride, depthwise=True)
    maps, context = torch.randn(3, 6, 9, 11), 9 * torch.randn(3, 5)
    share = (context @ layer.residuals[0].weight.T + layer.residuals[0].bias).softmax(1)
    for item, out in enumerate(layer(maps, context)):
        weight = sum(share[item, k] * layer.weight[0, 0, k] for k in range(4)).view(6, 1, kernel, kernel)
        expected = functional.conv2d(
            maps[item : item + 1], weight, stride=stride, padding=kernel // 2, groups=6
        )
        torch.testing.assert_close(out, expected[0], rtol=1e-4, atol=1e-5)


def test_pointwise_convolution_mixes_kernels_for_each_item() -> None:
    torch.manual_seed(0)
    layer = DynamicConv(6, 10, 5, 1)
    maps, context = torch.randn(3, 6, 9, 11), 9 * torch.randn(3, 5)
    share = layer.residuals(context).softmax(1)
    for item, out in enumerate(layer(maps, context)):
        weight = sum(share[item, k] * layer.weight[0, 0, k] for k in range(4)).view(10, 6, 1, 1)
        expected = functional.conv2d(maps[item : item + 1], weight)
        torch.testing.assert_close(out, expected[0], rtol=1e-4, atol=1e-5)


def test_dynamic_relu_is_relu_until_its_context_says_otherwise() -> None:
    torch.manual_seed(0)
    layer = DynamicReLU(3, 4)
    nn.init.zeros_(layer.coef_net[0].bias)
    maps = torch.randn(2, 3, 5, 7)
    torch.testing.assert_close(layer(maps, torch.zeros(2, 4)), maps.relu())
    # The coefficients of channel 1 as far as they go: slopes 2 and 1, offsets 0.5 and 0.5.
    layer.coef_net[0].bias.data[4:8] = 100
    out = layer(maps, torch.zeros(2, 4))
    torch.testing.assert_close(out[:, 1], torch.maximum(2 * maps[:, 1], maps[:, 1]) + 0.5)
    torch.testing.assert_close(out[:, 0], maps[:, 0].relu())


def test_context_hears_the_whole_segment() -> None:
    """What one end sounds like changes what is made of the other end, which no fixed kernel reaches."""
    torch.manual_seed(0)
    block = DynamicBlock(8, Block(3, 16, 8, False, nn.ReLU, 1), 1.0).eval()
    maps = torch.randn(1, 8, 4, 400)
    changed = maps.clone()
    changed[..., 200:] *= -5
    with torch.no_grad():
        difference = (block(maps) - block(changed))[..., :100].abs().max()
    assert difference > 1e-7


def test_a_block_is_the_same_as_onnx_for_any_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    block = DynamicBlock(8, Block(5, 24, 16, False, nn.Hardswish, 2), 1.0).train()
    for _ in range(10):
        block(torch.randn(8, 8, 16, 20))  # running statistics near those of what goes in
    # As trained contexts do, these choose among kernels.
    for module in block.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.5)
    block.eval()
    maps = torch.randn(3, 8, 16, 21)
    opened = session(export_onnx(ExportSpec("block", block, {"maps": maps[:2]}), tmp_path))
    with torch.no_grad():
        expected = block(maps).numpy()
    assert expected.std() > 0.01
    for n in (1, 3):
        np.testing.assert_allclose(run_onnx(opened, {"maps": maps[:n].numpy()}, 3), expected[:n], atol=1e-5)
