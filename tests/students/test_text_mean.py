"""Seed 1's text encoder: the words count, their order and the padding do not."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import normalize

from etude.students.text import MeanTextStudent, TextStudent, TextStudentConfig, build_text_student
from etude.students.text_encoder import TextEncoder
from etude.students.tokens import Tokens, load_tokenizer

TEXTS = ["happy piano", "piano", "a calm and dreamy string quartet with a whispered voice", "HAPPY pop song"]


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return load_tokenizer(None, 77)


def _student(tokens: Tokens, *, normalize: bool = True, seed: int = 0, **settings: object) -> TextEncoder:
    config = TextStudentConfig.model_validate({"name": "mean", "hidden": 32, **settings})
    torch.manual_seed(seed)
    return build_text_student(config, vocabulary=tokens.vocabulary, dim=24, normalize=normalize).eval()


def test_the_name_decides_what_is_built(tokens: Tokens) -> None:
    assert isinstance(_student(tokens), MeanTextStudent)
    assert isinstance(_student(tokens, name="transformer"), TextStudent)


def test_at_the_seeds_size_it_is_a_table_and_one_map() -> None:
    config = TextStudentConfig(name="mean", hidden=256)
    student = build_text_student(config, vocabulary=30_000, dim=256, normalize=True)
    shapes = {name: tuple(p.shape) for name, p in student.named_parameters()}
    assert shapes == {
        "tokens.weight": (30_000, 256),
        "head.linear.weight": (256, 256),
        "head.linear.bias": (256,),
    }


def test_it_is_the_map_of_the_mean_over_the_words(tokens: Tokens) -> None:
    student = _student(tokens, normalize=False)
    with torch.no_grad():
        found = student(*tokens.ids(TEXTS))
        for text, embedding in zip(TEXTS, found, strict=True):
            (ids,) = tokens.ids([text])[0]
            expected = student.head.linear(student.tokens.weight[ids].mean(dim=0))
            torch.testing.assert_close(embedding, expected, rtol=0, atol=1e-6)
        unit = _student(tokens)(*tokens.ids(TEXTS))
    torch.testing.assert_close(unit, normalize(found, dim=1))


def test_padding_what_stands_under_it_and_company_change_nothing(tokens: Tokens) -> None:
    student = _student(tokens)
    input_ids, mask = tokens.ids(TEXTS, length=77)
    noise = torch.randint(1000, 2000, input_ids.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = student(*tokens.ids(TEXTS))
        others = (
            student(input_ids, mask),
            student(torch.where(mask.bool(), input_ids, noise), mask),
            torch.cat([student(*tokens.ids([text])) for text in TEXTS]),
        )
        unmasked = student(input_ids, torch.ones_like(mask))
    for other in others:
        torch.testing.assert_close(other, together, rtol=0, atol=1e-6)
    assert (unmasked - together).abs().max() > 1e-2


def test_the_order_of_words_changes_nothing(tokens: Tokens) -> None:
    with torch.no_grad():
        first, second = _student(tokens)(*tokens.ids(["piano and violin", "violin and piano"]))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)


def test_a_row_without_any_text_is_finite(tokens: Tokens) -> None:
    input_ids, mask = tokens.ids(TEXTS)
    with torch.no_grad():
        assert _student(tokens)(input_ids, mask * 0).isfinite().all()


def test_it_starts_at_the_teachers_mean_and_about_its_spread(tokens: Tokens) -> None:
    student = _student(tokens, normalize=False, hidden=256)
    mean, std = torch.linspace(-1, 1, 24), torch.linspace(0.5, 1, 24)
    student.start_at(mean, std)
    ids = torch.randint(0, tokens.vocabulary, (500, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        inner = (student(ids, torch.ones_like(ids)) - mean) / std
    assert inner.mean().abs() < 0.05
    assert inner.std() == pytest.approx(1, abs=0.1)
    with pytest.raises(ValueError, match=r"24 dimensions, but the std to start at has shape \[512\]"):
        student.start_at(mean, torch.ones(512))


def test_a_frozen_backbone_stays_and_dropout_acts_in_training_only(tokens: Tokens) -> None:
    student, batch = _student(tokens, dropout=0.5), tokens.ids(TEXTS)
    assert torch.equal(student(*batch), student(*batch))
    student.train()
    assert not torch.equal(student(*batch), student(*batch))
    student.freeze_backbone()
    student(*batch).sum().backward()
    assert {name for name, p in student.named_parameters() if p.grad is not None} == {
        "head.linear.weight", "head.linear.bias",
    }  # fmt: skip


def test_a_batch_can_be_learnt(tokens: Tokens) -> None:
    student, batch = _student(tokens).train(), tokens.ids(TEXTS)
    target = normalize(torch.randn(4, 24, generator=torch.Generator().manual_seed(2)))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = (1 - (student(*batch) * target).sum(dim=1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("setting", [{"layers": 3}, {"heads": 2}, {"token_dim": 32}])
def test_settings_of_layers_are_refused(setting: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match=f"{next(iter(setting))} belong to the transformer"):
        TextStudentConfig.model_validate({"name": "mean", **setting})


def test_a_resolved_configuration_can_be_read_again() -> None:
    config = TextStudentConfig(name="mean", hidden=30)
    assert TextStudentConfig.model_validate(config.model_dump()) == config


def test_onnx_gives_the_same_embeddings(tmp_path: Path, tokens: Tokens) -> None:
    student, path = _student(tokens), tmp_path / "text.onnx"
    axes = {0: torch.export.Dim("batch", min=1)}
    program = torch.onnx.export(
        student, tokens.ids(TEXTS[:2], length=77), input_names=["input_ids", "attention_mask"],
        output_names=["embedding"], dynamic_shapes=(axes, axes), opset_version=18, dynamo=True,
        external_data=False, verbose=False,
    )  # fmt: skip
    assert program is not None
    program.save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    input_ids, mask = tokens.ids(TEXTS, length=77)
    (embedding,) = session.run(None, {"input_ids": input_ids.numpy(), "attention_mask": mask.numpy()})
    assert session.get_outputs()[0].name == "embedding"
    with torch.no_grad():
        np.testing.assert_allclose(embedding, student(*tokens.ids(TEXTS)).numpy(), rtol=0, atol=1e-5)
