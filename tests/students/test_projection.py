"""The projection head has the seed's size, fits the space it is given, and answers in length 1."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from etude.errors import UserError
from etude.students.projection import ProjectionHead, ProjectionHeadConfig
from etude.training.chunked import encode_in_chunks

SMALL = ProjectionHeadConfig(hidden=16, dropout=0)


def head(dim: int = 24, text_dim: int = 12, config: ProjectionHeadConfig = SMALL) -> ProjectionHead:
    torch.manual_seed(0)
    return ProjectionHead(text_dim, config, dim)


def texts(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 12, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("dim", "settings", "expected"),
    [
        (576, {}, 3_216_064),
        (1536, {}, 4_201_984),
        (76_800, {"rank": 2048}, 162_765_824),
        (76_800, {"hidden": 1024, "rank": 1024}, 81_498_112),
        (76_800, {"hidden": 4096, "rank": 4096}, 325_301_248),
        (76_800, {}, 45_849_600),
    ],
)
def test_heads_have_the_seeds_sizes(dim: int, settings: dict[str, int], expected: int) -> None:
    """facts/projection_and_emotion.md, a: text vectors of 2560. The last is the default of a wide space."""
    with torch.device("meta"):
        built = ProjectionHead(2560, ProjectionHeadConfig.model_validate(settings), dim)
    assert sum(p.numel() for p in built.parameters()) == expected


@pytest.mark.parametrize(("dim", "hidden", "rank"), [(16_384, 1024, None), (16_385, 2048, 512)])
def test_a_wide_space_has_more_width_and_a_factored_map(dim: int, hidden: int, rank: int | None) -> None:
    with torch.device("meta"):
        built = ProjectionHead(384, ProjectionHeadConfig(), dim)
    assert built.linear1.weight.shape == (hidden, 384)
    assert built.linear2.weight.shape == (dim, rank or hidden)


@pytest.mark.parametrize(("rank", "taken"), [(None, 16), (5, 5), (16, 16), (400, 16)])
def test_a_rank_bounds_what_the_second_map_can_say(rank: int | None, taken: int) -> None:
    built = head(config=ProjectionHeadConfig(hidden=16, rank=rank))
    assert built.linear2.weight.shape == (24, taken)
    before = built.linear2(built.narrow(torch.randn(60, 16))) - built.linear2.bias
    assert torch.linalg.matrix_rank(before, rtol=1e-4) == min(taken, 16)


def test_weights_start_as_upstreams() -> None:
    built = head(dim=200, config=ProjectionHeadConfig(hidden=100, rank=50))
    for linear in (built.linear1, built.narrow, built.linear2):
        assert isinstance(linear, nn.Linear)
        bound = (6 / sum(linear.weight.shape)) ** 0.5
        assert linear.weight.abs().max() <= bound
        assert linear.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        assert linear.bias is None or not linear.bias.any()


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("rank", [None, 4])
def test_vectors_have_length_1_in_float32(rank: int | None, bfloat16: bool) -> None:
    built = head(config=ProjectionHeadConfig(hidden=16, rank=rank))
    for training in (True, False):
        built.train(training)
        with torch.autocast("cpu", torch.bfloat16, bfloat16):
            found = built(texts(6))
        assert (found.shape, found.dtype) == ((6, 24), torch.float32)
        torch.testing.assert_close(found.norm(dim=1), torch.ones(6), rtol=0, atol=1e-6)


def test_it_is_the_seeds_head() -> None:
    built = head().train()
    theirs = nn.Sequential(
        nn.Linear(12, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Linear(16, 24), nn.BatchNorm1d(24)
    ).train()
    with torch.no_grad():
        for ours, layer in ((built.linear1, theirs[0]), (built.linear2, theirs[3])):
            layer.weight.copy_(ours.weight)
            layer.bias.copy_(ours.bias)
    found, expected = built(texts(8)), theirs(texts(8))
    torch.testing.assert_close(found, expected / expected.norm(dim=1, keepdim=True))


def test_it_learns_and_answers_the_same_out_of_training() -> None:
    built = head(config=ProjectionHeadConfig(hidden=32, rank=8)).train()
    target = nn.functional.normalize(torch.randn(16, 24), dim=1)
    optimizer = torch.optim.AdamW(built.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = 1 - (built(texts(16)) * target).sum(dim=1).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5
    built.eval()
    together = built(texts(16))
    for row in range(16):
        torch.testing.assert_close(built(texts(16)[row : row + 1])[0], together[row])
    assert 1 - (together * target).sum(dim=1).mean().item() < losses[0] - 0.4


def test_a_single_text_cannot_be_learned_from() -> None:
    built = head().train()
    with pytest.raises(UserError, match=r"a single text has no variance: choose training\.batch_size"):
        built(texts(1))
    with pytest.raises(UserError, match="none holds one text alone"):
        encode_in_chunks(built, (texts(3),), 2)
    assert built.eval()(texts(1)).shape == (1, 24)


def test_chunks_have_statistics_of_their_own() -> None:
    built = head().train()
    found = encode_in_chunks(built, (texts(8),), 4)
    expected = torch.cat([head().train()(part) for part in texts(8).chunk(2)])
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, head().train()(texts(8)), atol=1e-2)


@pytest.mark.parametrize("wrong", [{"hidden": 4}, {"rank": 0}, {"dropout": 1.0}, {"dim": 1536}])
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ProjectionHeadConfig.model_validate(wrong)
