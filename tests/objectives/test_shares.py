"""However a batch is spread over ranks, its loss and gradients are those of the whole."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from etude.objectives.terms import weighted_mean
from tests.support.ranks import on_two_ranks

VALUES = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
WEIGHTS = torch.tensor([1.0, 0.0, 3.0, 1.0, 0.5])


def _share(rank: int) -> dict[str, Tensor]:
    mine = slice(0, 2) if rank == 0 else slice(2, 5)
    found = {}
    for name, weights in (("plain", None), ("weighted", WEIGHTS[mine])):
        values = VALUES[mine].clone().requires_grad_()
        share = weighted_mean(values, weights)
        share.backward()
        found[name], found[f"{name} gradient"] = share.detach(), values.grad
    return found


@pytest.mark.slow
def test_the_mean_of_shares_is_that_of_the_whole(tmp_path: Path) -> None:
    shares = on_two_ranks(_share, tmp_path)
    for name, weights in (("plain", None), ("weighted", WEIGHTS)):
        values = VALUES.clone().requires_grad_()
        whole = weighted_mean(values, weights)
        whole.backward()
        assert sum(share[name] for share in shares) / 2 == pytest.approx(float(whole))
        gradient = torch.cat([share[f"{name} gradient"] for share in shares]) / 2
        assert torch.allclose(gradient, values.grad)
