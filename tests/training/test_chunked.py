"""Encoding in chunks changes what memory a batch takes, and nothing else."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from etude.evaluation.speed import peak_mb
from etude.objectives.contrastive import Contrast, ContrastiveConfig
from etude.students import StudentConfig, build_student
from etude.students.text import TextStudentConfig, build_text_student
from etude.training.chunked import encode_in_chunks

N = 10


class Pair(nn.Module):
    """A music and a text encoder that the contrastive term compares, as a system does."""

    def __init__(
        self, chunk: int | None, *, dropout: float = 0.0, batch_norm: bool = True, student: str = "convnet"
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        width = 0.25 if student == "convnet" else 1.0
        config = StudentConfig(name=student, width=width, dropout=dropout)
        self.music: nn.Module = build_student(config, 16, normalize=True)
        if not batch_norm:
            self.music = nn.Sequential(
                nn.Flatten(), nn.LayerNorm(32 * 32), nn.Linear(32 * 32, 24), nn.GELU(), nn.Linear(24, 16)
            )
        text = TextStudentConfig(hidden=16, layers=1, token_dim=8, dropout=dropout)
        self.text = build_text_student(text, vocabulary=50, dim=16, normalize=True)
        self.contrast = Contrast(ContrastiveConfig(chunk=chunk))
        self.chunk = chunk

    def forward(self, mel: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        music = encode_in_chunks(self.music, (mel,), self.chunk)
        text = encode_in_chunks(self.text, (ids, mask), self.chunk)
        loss: Tensor = self.contrast(music, text, torch.arange(len(mel)))
        return loss


def _inputs(n: int = N, size: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    mask = torch.ones(n, 6, dtype=torch.int64)
    mask[::2, 4:] = 0
    mel = torch.empty(n, size, size).normal_(-30, 20)  # in place: memory is measured here
    return mel, torch.randint(0, 50, (n, 6)), mask


def _kept(encoder: nn.Module, inputs: tuple[Tensor, ...], chunk: int | None) -> Tensor:
    """The same chunks with everything kept for the gradient."""
    n_chunks = 1 if chunk is None else -(-len(inputs[0]) // chunk)
    parts = zip(*(values.tensor_split(n_chunks) for values in inputs), strict=True)
    return torch.cat([encoder(*part) for part in parts])


def _learn(pair: Pair, *, steps: int = 1, bfloat16: bool = False) -> dict[str, Tensor]:
    """Loss, gradients and buffers after some steps from one random state.

    Without autocast's cache, which sums the gradients of chunks in bfloat16 where everything is kept.
    """
    pair.train()
    torch.manual_seed(7)
    for _ in range(steps):
        pair.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, bfloat16, cache_enabled=False):
            loss = pair(*_inputs())
        loss.backward()
    gradients = {f"{name}.grad": p.grad for name, p in pair.named_parameters()}
    return {"loss": loss.detach(), "next draw": torch.rand(3), **gradients, **dict(pair.named_buffers())}


@pytest.mark.parametrize("chunk", [2, 3, 5, 9])
def test_without_batch_norm_the_whole_batch_has_the_same_loss_and_gradients(chunk: int) -> None:
    plain, cached = (Pair(c, batch_norm=False) for c in (None, chunk))
    expected, found = _learn(plain), _learn(cached)
    assert sum(bool(value.abs().max() > 1e-3) for name, value in expected.items() if "grad" in name) > 10
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("chunk", [2, 4])
def test_with_batch_norm_and_dropout_the_same_chunks_kept_give_the_same(
    monkeypatch: pytest.MonkeyPatch, chunk: int, bfloat16: bool
) -> None:
    """Running statistics and the random numbers that come after are the same too, over two steps."""
    cached = Pair(chunk, dropout=0.3)
    kept = copy.deepcopy(cached)
    found = _learn(cached, steps=2, bfloat16=bfloat16)
    monkeypatch.setattr(sys.modules[__name__], "encode_in_chunks", _kept)
    expected = _learn(kept, steps=2, bfloat16=bfloat16)
    assert any(name.endswith("running_var") for name in found)
    assert found["music.backbone.features.1.num_batches_tracked"] == 2 * -(-N // chunk)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_chunks_in_which_blocks_are_computed_twice_again_give_the_same() -> None:
    once, twice = Pair(4), Pair(4)
    twice.music.backbone.recompute_activations = True
    torch.testing.assert_close(_learn(twice), _learn(once), rtol=1e-5, atol=1e-6)


def test_chunks_are_even_and_none_is_larger() -> None:
    sizes: list[int] = []
    encoder = nn.Linear(3, 2)
    encoder.register_forward_hook(lambda _module, inputs, _output: sizes.append(len(inputs[0])))
    x = torch.randn(10, 3)
    with torch.no_grad():
        whole = encoder(x)
        for chunk, expected in ((None, [10]), (10, [10]), (9, [5, 5]), (4, [4, 3, 3]), (3, [3, 3, 2, 2])):
            sizes.clear()
            torch.testing.assert_close(encode_in_chunks(encoder, (x,), chunk), whole)
            assert sizes == expected


def test_a_frozen_encoder_needs_no_second_pass_to_be_right() -> None:
    encoder = nn.Linear(3, 2).requires_grad_(False)
    embedding = encode_in_chunks(encoder, (torch.randn(10, 3),), 4)
    assert not embedding.requires_grad


_MEASURED = """
from tests.training.test_chunked import memory_of
print(memory_of({n}, {chunk}))
"""


def memory_of(n: int, chunk: int | None) -> float:
    """MB by which one training step on `n` items raises what this process ever held."""
    pair = Pair(chunk, student="mobilenet").train()
    pair(*_inputs(4)).backward()  # what libraries take once
    before = peak_mb()
    pair(*_inputs(n, 64)).backward()
    return peak_mb() - before


def _peak(n: int, chunk: int | None) -> float:
    """`memory_of` in a process of its own."""
    code = _MEASURED.format(n=n, chunk=chunk)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.slow
def test_a_batch_of_4096_takes_less_memory_than_256_at_once() -> None:
    assert 0 < _peak(4096, 32) < _peak(256, None)
