"""The hybrid of seed 2: its documented size, any length, and places that are told apart."""

import torch

from etude.students import StudentConfig, build_student
from etude.students.cost import count
from etude.students.tinyclap import Attention, positions, tinyclap


def test_has_the_documented_number_of_parameters() -> None:
    student = build_student(StudentConfig(name="tinyclap", width=1.0), 512, normalize=True)
    assert count(student, torch.empty(1, 128, 1001)).parameters == 2_100_704


def test_width_scales_channels() -> None:
    small, large = tinyclap(0.25), tinyclap(0.5)
    assert (small.n_features, large.n_features) == (64, 128)
    assert (
        count(small, torch.empty(1, 128, 501)).parameters
        < 0.4 * count(large, torch.empty(1, 128, 501)).parameters
    )


def test_any_length_and_height_gives_one_row_a_segment() -> None:
    network = tinyclap(0.2).eval()
    for n_mels, n_frames in ((128, 1001), (64, 125), (11, 11), (128, 3000)):
        assert network(torch.randn(2, n_mels, n_frames)).shape == (2, network.n_features)


def test_every_place_has_a_position_of_its_own() -> None:
    places = positions(6, 40, 32).flatten(0, 1)
    apart = torch.cdist(places, places) + 1e3 * torch.eye(len(places))
    assert apart.min() > 0.1


def test_where_a_sound_stands_counts() -> None:
    """A mean over places that knew no positions would hear shuffled places as the same."""
    torch.manual_seed(0)
    network = tinyclap(0.2).eval()
    # Stages that make every bin a place of its own, so that shuffled frames are shuffled places.
    network.stages = torch.nn.ModuleList([torch.nn.Conv2d(1, network.project.in_features, 1)])
    mel = torch.randn(1, 4, 31)
    with torch.no_grad():
        difference = network(mel) - network(mel[..., torch.randperm(31)])
    assert difference.abs().max() > 1e-3


def test_attention_is_softmax_of_scaled_products() -> None:
    torch.manual_seed(0)
    layer, tokens = Attention(16), torch.randn(2, 5, 16)
    q, k, v = (part.view(2, 5, 4, 4).transpose(1, 2) for part in layer.qkv(tokens).chunk(3, dim=2))
    expected = (q @ k.transpose(2, 3) / 2).softmax(dim=3) @ v
    torch.testing.assert_close(layer(tokens), layer.out(expected.transpose(1, 2).reshape(2, 5, 16)))
    assert layer.macs(layer(tokens)) == 2 * (2 * 4 * 5 * 5 * 4)
