"""The head begins where the teacher is, and gives unit vectors only where asked."""

import pytest
import torch

from etude.errors import UserError
from etude.students.head import BatchNormHead, ProjectionHead

DIM = 200


def _head(*, normalize: bool, dropout: float = 0.1) -> ProjectionHead:
    torch.manual_seed(0)
    return ProjectionHead(48, DIM, dropout=dropout, normalize=normalize).eval()


def test_untrained_head_has_the_statistics_it_starts_at() -> None:
    head = _head(normalize=False)
    mean, std = torch.linspace(-3, 5, DIM), torch.linspace(0.1, 2, DIM)
    head.start_at(mean, std)
    with torch.no_grad():
        inner = (head(torch.randn(500, 48)) - mean) / std
    torch.testing.assert_close(inner.mean(dim=1), torch.zeros(500), rtol=0, atol=1e-4)
    torch.testing.assert_close(inner.square().mean(dim=1), torch.ones(500), rtol=0, atol=1e-3)


def test_without_spread_every_embedding_is_the_mean() -> None:
    mean = torch.linspace(-3, 5, DIM)
    for normalize, expected in ((False, mean), (True, mean / mean.norm())):
        head = _head(normalize=normalize)
        head.start_at(mean, torch.zeros(DIM))
        torch.testing.assert_close(head(torch.randn(3, 48)), expected.expand(3, DIM))


def test_length_is_one_only_if_normalised() -> None:
    features = torch.randn(16, 48)
    torch.testing.assert_close(_head(normalize=True)(features).norm(dim=1), torch.ones(16))
    assert _head(normalize=False)(features).norm(dim=1).mean() > 5


def test_statistics_of_another_size_are_refused() -> None:
    head = _head(normalize=False)
    with pytest.raises(ValueError, match=r"200 dimensions, but the std to start at has shape \[512\]"):
        head.start_at(torch.zeros(DIM), torch.ones(512))
    assert torch.equal(head.norm.bias, torch.zeros(DIM))


def test_starting_point_still_learns() -> None:
    head = _head(normalize=False).train()
    head.start_at(torch.ones(DIM), torch.ones(DIM))
    head(torch.randn(4, 48)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def test_dropout_acts_in_training_only() -> None:
    features = torch.randn(4, 48)
    head = _head(normalize=False, dropout=0.5)
    assert torch.equal(head(features), head(features))
    head.train()
    assert not torch.equal(head(features), head(features))


def _batch_norm_head(*, normalize: bool, dropout: float = 0.0) -> BatchNormHead:
    torch.manual_seed(0)
    return BatchNormHead(48, DIM, dropout=dropout, normalize=normalize).train()


def test_batch_norm_head_has_the_statistics_it_starts_at() -> None:
    head = _batch_norm_head(normalize=False)
    mean, std = torch.linspace(-3, 5, DIM), torch.linspace(0.1, 2, DIM)
    head.start_at(mean, std)
    with torch.no_grad():
        inner = (head(3 + 7 * torch.randn(2000, 48)) - mean) / std
    torch.testing.assert_close(inner.mean(dim=0), torch.zeros(DIM), rtol=0, atol=0.1)
    assert inner.var(dim=0).mean().sqrt().item() == pytest.approx(1, abs=0.1)


def test_batch_norm_head_without_spread_gives_the_mean() -> None:
    mean = torch.linspace(-3, 5, DIM)
    for normalize, expected in ((False, mean), (True, mean / mean.norm())):
        head = _batch_norm_head(normalize=normalize)
        head.start_at(mean, torch.zeros(DIM))
        torch.testing.assert_close(head(torch.randn(3, 48)), expected.expand(3, DIM))


def test_batch_norm_head_still_learns_and_drops_out_in_training_only() -> None:
    head = _batch_norm_head(normalize=False, dropout=0.5)
    head.start_at(torch.ones(DIM), torch.ones(DIM))
    features = torch.randn(4, 48)
    assert not torch.equal(head(features), head(features))
    head(features).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
    head.eval()
    assert torch.equal(head(features), head(features))


def test_batch_norm_head_refuses_what_it_cannot_use() -> None:
    head = _batch_norm_head(normalize=False)
    with pytest.raises(ValueError, match=r"200 dimensions, but the mean to start at has shape \[512\]"):
        head.start_at(torch.zeros(512), torch.ones(DIM))
    with pytest.raises(UserError, match=r"set training\.batch_size to 2 or more"):
        head(torch.randn(1, 48))
    assert head.eval()(torch.randn(1, 48)).shape == (1, DIM)
