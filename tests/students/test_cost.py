"""Costs are those one counts by hand."""

import torch
from torch import Tensor, nn

from etude.students.cost import Cost, count


class _Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(4, 8, kernel_size=(3, 5), stride=2, padding=(1, 2), groups=2)
        self.linear = nn.Linear(8, 10)
        self.norm = nn.BatchNorm1d(10)

    def forward(self, mel: Tensor) -> Tensor:
        maps = self.grouped(mel.unsqueeze(1).expand(-1, 4, -1, -1))
        out: Tensor = self.norm(self.linear(maps.mean(dim=(2, 3))))
        return out


def test_counts_grouped_convolution_and_linear() -> None:
    # Maps of 16 x 50 for 8 channels, each from 2 inputs x 3 x 5; then 8 x 10 once.
    macs = 8 * 16 * 50 * (2 * 3 * 5) + 8 * 10
    parameters = (8 * 2 * 3 * 5 + 8) + (8 * 10 + 10) + (10 + 10)
    assert count(_Small(), torch.empty(1, 32, 100)) == Cost(parameters, macs)


def test_linear_on_a_sequence_counts_every_step() -> None:
    assert count(nn.Linear(100, 7, bias=False), torch.empty(1, 32, 100)) == Cost(700, 32 * 700)


def test_counting_leaves_the_module_alone() -> None:
    module = _Small().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    count(module, torch.empty(1, 32, 100))
    assert module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert not any(layer._forward_hooks for layer in module.modules())


class _Own(nn.Linear):
    def macs(self, output: Tensor) -> int:
        return 1000 * len(output)


def test_a_module_that_counts_its_own_work_is_asked() -> None:
    module = nn.Sequential(_Own(100, 7), nn.Linear(7, 2))
    assert count(module, torch.empty(1, 32, 100)).macs == 1000 + 32 * 7 * 2
