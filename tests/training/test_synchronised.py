"""Batch norm over two ranks learns what one rank learns from the whole batch."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from etude.objectives.contrastive import Contrast, ContrastiveConfig
from etude.students import StudentConfig, build_student
from etude.training.chunked import encode_in_chunks
from etude.training.synchronised import synchronise
from tests.support.ranks import on_two_ranks

N = 8
KINDS = ("contrast", "cached", "local loss", "bfloat16")


class Net(nn.Module):
    """Both kinds of batch norm, and losses that compare items over ranks, or do not."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        config = StudentConfig(name="tinyclap", width=0.1, dropout=0.0)
        self.student = build_student(config, 12, normalize=True)
        self.contrast = Contrast(ContrastiveConfig(temperature=0.2))
        self.kind = kind

    def forward(self, mel: Tensor, text: Tensor, track: Tensor) -> tuple[Tensor, Tensor]:
        # Chunks of 2 on each of two ranks hold the same items as chunks of 4 on one: see `_rows`.
        chunk = {"cached": len(mel) // 2}.get(self.kind)
        embedding = encode_in_chunks(self.student, (mel,), chunk)
        if self.kind == "local loss":
            return embedding, (embedding - text).square().mean()
        return embedding, self.contrast(embedding, text, track)


def _rows(rank: int) -> Tensor:
    return torch.tensor([0, 1, 4, 5]) + 2 * rank


def _step(net: nn.Module, kind: str, rows: Tensor) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    mel = -30 + 20 * torch.randn(N, 32, 32, generator=generator) + torch.arange(N)[:, None, None] * 3
    text = torch.randn(N, 12, generator=generator)
    net.train()
    with torch.autocast("cpu", torch.bfloat16, kind == "bfloat16"):
        embedding, loss = net(mel[rows], text[rows], torch.arange(N)[rows])
    loss.backward()
    found = {"embedding": embedding.detach().float(), "loss": loss.detach()}
    found |= {f"{name}.grad": p.grad for name, p in net.named_parameters() if p.grad is not None}
    return {
        name.removeprefix("module."): value for name, value in (found | dict(net.named_buffers())).items()
    }


def _share(rank: int) -> dict[str, dict[str, Tensor]]:
    found = {}
    for kind in KINDS:
        net = Net(kind)
        synchronise(net)
        # Otherwise rank 0's running statistics would be handed round, and hide that they are the same.
        wrapped = DistributedDataParallel(
            net, broadcast_buffers=False, find_unused_parameters=kind == "local loss"
        )
        found[kind] = _step(wrapped, kind, _rows(rank))
        found[f"{kind}, evaluated"] = {"it": net.student.eval()(torch.ones(1 + rank, 32, 32)).detach()}
    unequal = nn.BatchNorm1d(3)
    synchronise(unequal)
    x = torch.arange(15.0).reshape(5, 3).square()
    found["unequal"] = {
        "out": unequal(x[:1] if rank == 0 else x[1:]).detach(),
        **dict(unequal.named_buffers()),
    }
    return found


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory):
    return on_two_ranks(_share, Path(tmp_path_factory.mktemp("ranks")))


@pytest.mark.parametrize("kind", KINDS)
def test_two_halves_and_the_whole_give_the_same(two_ranks, kind: str) -> None:
    """Embeddings, gradients and running statistics; the loss too, where it is that of all ranks."""
    expected = _step(Net(kind), kind, torch.arange(N))
    assert any(name.endswith("running_var") for name in expected)
    assert sum(bool(value.abs().max() > 1e-3) for name, value in expected.items() if "grad" in name) > 20
    rough = kind == "bfloat16"
    for rank, found in enumerate(two_ranks):
        wanted = expected | {"embedding": expected["embedding"][_rows(rank)]}
        got = dict(found[kind])
        if kind == "local loss":
            got["loss"] = (two_ranks[0][kind]["loss"] + two_ranks[1][kind]["loss"]) / 2
        if rough:  # torch's own rounds to bfloat16 in other places, and ten layers add that up
            for name in ("loss", "embedding"):
                torch.testing.assert_close(got[name], wanted[name], rtol=0.05, atol=0.05)
            continue
        for name, value in wanted.items():
            torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-4, msg=name)


def test_ranks_with_unequal_shares_count_every_value_once(two_ranks) -> None:
    norm, x = nn.BatchNorm1d(3), torch.arange(15.0).reshape(5, 3).square()
    out = norm(x).detach()
    for found, expected in zip(two_ranks, (out[:1], out[1:]), strict=True):
        torch.testing.assert_close(found["unequal"], {"out": expected, **dict(norm.named_buffers())})


@pytest.mark.parametrize("kind", KINDS)
def test_in_evaluation_no_rank_waits_for_another(two_ranks, kind: str) -> None:
    one, two = (found[f"{kind}, evaluated"]["it"] for found in two_ranks)
    torch.testing.assert_close(two, one.expand(2, -1), rtol=0, atol=1e-4 if kind != "bfloat16" else 0.05)


def test_alone_it_is_plain_batch_norm_with_the_same_parts() -> None:
    net = Net("contrast")
    plain = copy.deepcopy(net)
    parameters, names = list(net.parameters()), list(net.state_dict())
    synchronise(net)
    synchronise(net)
    assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
    assert list(net.state_dict()) == names
    expected, found = (_step(n, "contrast", torch.arange(N)) for n in (plain, net))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot synchronise BatchNorm3d"):
        synchronise(nn.Sequential(nn.BatchNorm3d(2)))
