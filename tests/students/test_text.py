"""The text student reads words in their order, whatever pads them, and leaves as ONNX unchanged."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from pydantic import ValidationError
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from etude.errors import UserError
from etude.students.text import TextStudent, TextStudentConfig, sinusoids
from etude.students.tokens import Tokens, load_tokenizer

TEXTS = ["happy piano", "piano", "a calm and dreamy string quartet with a whispered voice", "HAPPY pop song"]


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return load_tokenizer(None, 77)


def _student(tokens: Tokens, *, normalize: bool = True, seed: int = 0, **settings: object) -> TextStudent:
    config = TextStudentConfig.model_validate({"hidden": 32, "token_dim": 16, **settings})
    torch.manual_seed(seed)
    return TextStudent(config, vocabulary=tokens.vocabulary, dim=24, normalize=normalize).eval()


def _roberta(path: Path, **settings: object) -> Path:
    """A byte-level BPE with RoBERTa's special tokens, of a few words."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    path.write_text(json.dumps({**json.loads(tokenizer.to_str()), **settings}))
    return path


# Tokens


def test_the_packaged_tokenizer_is_bert_with_its_own_padding_left_out(tokens: Tokens) -> None:
    input_ids, mask = tokens.ids(["happy piano", "piano"])
    assert input_ids.tolist() == [[101, 3407, 3682, 102], [101, 3682, 102, 0]]
    assert mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert input_ids.dtype == mask.dtype == torch.int64
    assert (tokens.vocabulary, tokens.pad, tokens.id) == (30_522, 0, "tokenizer-be50c362")
    assert Tokens(tokens.content, 77).id == tokens.id


def test_a_roberta_tokenizer_pads_with_its_own(tmp_path: Path) -> None:
    tokens = load_tokenizer(_roberta(tmp_path / "tokenizer.json"), 77)
    assert tokens.pad == 1
    input_ids, mask = tokens.ids(TEXTS)
    for row, ones in zip(input_ids, mask, strict=True):
        n = int(ones.sum())
        assert ones.tolist() == [1] * n + [0] * (len(ones) - n)
        assert (row[0], row[n - 1]) == (0, 2)
        assert (row[n:] == 1).all()
    assert int(mask.sum(dim=1).max()) == input_ids.shape[1]
    assert not torch.equal(tokens.ids(["pop"])[0], tokens.ids(["POP"])[0])


def test_a_folder_serves_and_the_id_goes_by_content(tmp_path: Path) -> None:
    path = _roberta(tmp_path / "tokenizer.json")
    other = _roberta(tmp_path / "other.json", version="1.0", padding=None)
    assert load_tokenizer(tmp_path, 77).id == load_tokenizer(path, 77).id
    other.write_text(path.read_text() + "\n")
    assert load_tokenizer(other, 77).id != load_tokenizer(path, 77).id


def test_padding_and_truncation_in_the_file_do_not_count(tmp_path: Path) -> None:
    plain = load_tokenizer(_roberta(tmp_path / "plain.json"), 77)
    padding = {
        "strategy": {"Fixed": 50}, "direction": "Left", "pad_to_multiple_of": 8,
        "pad_id": 4, "pad_type_id": 0, "pad_token": "<mask>",
    }  # fmt: skip
    truncation = {"direction": "Left", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    settled = load_tokenizer(_roberta(tmp_path / "set.json", padding=padding, truncation=truncation), 77)
    for ours, theirs in zip(plain.ids(TEXTS), settled.ids(TEXTS), strict=True):
        assert torch.equal(ours, theirs)


def test_a_fixed_length_pads_as_production_does(tokens: Tokens) -> None:
    short, mask = tokens.ids(TEXTS)
    fixed, fixed_mask = tokens.ids(TEXTS, length=77)
    assert fixed.shape == fixed_mask.shape == (4, 77)
    assert torch.equal(fixed[:, : short.shape[1]], short)
    assert torch.equal(fixed_mask.sum(dim=1), mask.sum(dim=1))
    assert tokens.ids([])[0].shape == (0, 0)


def test_a_text_that_is_too_long_is_quoted(tokens: Tokens) -> None:
    long = "piano " * 76
    assert tokens.too_long([*TEXTS, long.strip(), "piano " * 75]) == [4]
    assert tokens.ids(["piano " * 75])[0].shape == (1, 77)
    with pytest.raises(
        UserError, match=r"'piano piano .*\.\.\.' has 78 tokens, the model takes 77: shorten it"
    ):
        tokens.ids(["pop", long])
    with pytest.raises(UserError, match=r"'a calm .*tokens, the model takes 6"):
        load_tokenizer(None, 6).ids(TEXTS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no Hugging Face tokenizer.json"),
        (b"{}", "is no Hugging Face tokenizer.json"),
        (b"\xff\x00", "is no Hugging Face tokenizer.json"),
        (Tokenizer(models.BPE()).to_str().encode(), "it has not a single token"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_tokenizer(tmp_path, 77)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the tokenizer .*none: No such file.*tokenizer\.json"):
        load_tokenizer(tmp_path / "none", 77)


# The student


@pytest.mark.parametrize("normalize", [False, True])
def test_embeddings_have_the_teachers_form(tokens: Tokens, normalize: bool) -> None:
    embedding = _student(tokens, normalize=normalize)(*tokens.ids(TEXTS))
    assert embedding.shape == (4, 24)
    lengths = embedding.norm(dim=1)
    assert ((lengths - 1).abs().max() < 1e-5) == normalize


def test_the_default_size_is_mostly_layers(tokens: Tokens) -> None:
    student = TextStudent(TextStudentConfig(), vocabulary=tokens.vocabulary, dim=512, normalize=True)
    n_parameters = sum(p.numel() for p in student.parameters())
    assert student.tokens.weight.numel() == 30_522 * 64
    assert 3.5e6 < n_parameters < 4.5e6


def test_padding_and_company_change_nothing(tokens: Tokens) -> None:
    student = _student(tokens, layers=3)
    with torch.no_grad():
        together = student(*tokens.ids(TEXTS))
        fixed = student(*tokens.ids(TEXTS, length=77))
        alone = torch.cat([student(*tokens.ids([text])) for text in TEXTS])
        reverse = student(*tokens.ids(TEXTS[::-1])).flip(0)
    for other in (fixed, alone, reverse):
        torch.testing.assert_close(other, together, rtol=0, atol=1e-5)


def test_what_stands_under_the_padding_is_never_read(tokens: Tokens) -> None:
    student = _student(tokens)
    input_ids, mask = tokens.ids(TEXTS, length=20)
    noise = torch.randint(1000, 2000, input_ids.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        embedding = student(input_ids, mask)
        noisy = student(torch.where(mask.bool(), input_ids, noise), mask)
        unmasked = student(input_ids, torch.ones_like(mask))
    torch.testing.assert_close(noisy, embedding, rtol=0, atol=1e-5)
    assert (unmasked - embedding).abs().max() > 1e-3


def test_the_order_of_words_matters(tokens: Tokens) -> None:
    student = _student(tokens)
    with torch.no_grad():
        first, second = student(*tokens.ids(["piano and violin", "violin and piano"]))
    assert (first - second).abs().max() > 1e-3


def test_a_row_without_any_text_is_finite(tokens: Tokens) -> None:
    student = _student(tokens)
    input_ids, mask = tokens.ids(TEXTS)
    mask[1] = 0
    with torch.no_grad():
        embedding = student(input_ids, mask)
    assert embedding.isfinite().all()
    torch.testing.assert_close(embedding[0], student(*tokens.ids(TEXTS[:1]))[0], rtol=0, atol=1e-5)


def test_bfloat16_keeps_the_embedding(tokens: Tokens) -> None:
    student = _student(tokens)
    batch = tokens.ids(TEXTS, length=30)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        rough = student(*batch).float()
    torch.testing.assert_close(rough, student(*batch), rtol=0, atol=0.05)


def test_all_weights_learn_and_a_batch_can_be_learnt(tokens: Tokens) -> None:
    student = _student(tokens).train()
    batch = tokens.ids(TEXTS)
    target = torch.nn.functional.normalize(torch.randn(4, 24, generator=torch.Generator().manual_seed(2)))
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = (1 - (student(*batch) * target).sum(dim=1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())
    assert losses[-1] < 0.3 * losses[0]


def test_it_starts_at_the_teachers_mean(tokens: Tokens) -> None:
    student = _student(tokens)
    mean = torch.linspace(-1, 1, 24)
    student.start_at(mean, torch.full((24,), 0.01))
    with torch.no_grad():
        cosine = student(*tokens.ids(TEXTS)) @ (mean / mean.norm())
    assert (cosine > 0.99).all()


def test_a_seed_decides_the_weights(tokens: Tokens) -> None:
    first, same, other = (_student(tokens, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_dropout_acts_in_training_only(tokens: Tokens) -> None:
    student, batch = _student(tokens, dropout=0.5), tokens.ids(TEXTS)
    assert torch.equal(student(*batch), student(*batch))
    student.train()
    assert not torch.equal(student(*batch), student(*batch))


def test_a_frozen_backbone_stays_and_keeps_still(tokens: Tokens) -> None:
    student, batch = _student(tokens, dropout=0.5), tokens.ids(TEXTS)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    student.freeze_backbone()
    student.train()
    seen: list[torch.Tensor] = []
    student.head.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        student(*batch)[:, 0].sum().backward()
        optimizer.step()
    assert torch.equal(seen[0], seen[1])  # no dropout before the head
    changed = {name for name, value in student.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"head.{name}" for name, _ in student.head.named_parameters()}


def test_positions_are_all_different() -> None:
    table = sinusoids(77, 33)
    assert table.shape == (77, 33)
    assert torch.cdist(table, table).fill_diagonal_(9).min() > 0.1


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden": 30},
        {"hidden": 4},
        {"layers": 0},
        {"heads": 0},
        {"dropout": 1.0},
        {"max_tokens": 2},
        {"width": 1},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        TextStudentConfig.model_validate(wrong)


@pytest.mark.parametrize("fixed", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_onnx_gives_the_same_embeddings_for_any_batch(tmp_path: Path, tokens: Tokens, fixed: bool) -> None:
    student, path = _student(tokens), tmp_path / "text.onnx"
    batch = torch.export.Dim("batch", min=1)
    axes = {0: batch} if fixed else {0: batch, 1: torch.export.Dim("tokens", min=2, max=77)}
    example = tokens.ids(TEXTS[:2], length=77 if fixed else None)
    program = torch.onnx.export(
        student, example, input_names=["input_ids", "attention_mask"], output_names=["embedding"],
        dynamic_shapes=(axes, axes), opset_version=18, dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip
    assert program is not None
    program.save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [(i.name, i.type) for i in session.get_inputs()] == [
        ("input_ids", "tensor(int64)"),
        ("attention_mask", "tensor(int64)"),
    ]
    for texts in (TEXTS[:1], TEXTS, TEXTS * 3):
        input_ids, mask = tokens.ids(texts, length=77 if fixed else None)
        feed = {"input_ids": input_ids.numpy(), "attention_mask": mask.numpy()}
        (embedding,) = session.run(["embedding"], feed)
        with torch.no_grad():
            expected = student(*tokens.ids(texts)).numpy()
        np.testing.assert_allclose(embedding, expected, rtol=0, atol=1e-5)
