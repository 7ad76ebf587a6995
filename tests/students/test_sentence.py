"""Pretrained text encoders: a vector depends on its text alone, and only adapters learn and are kept.

MiniLM has its real weights. Qwen3 is the real network with small random weights (tests/support/tiny_qwen.py).
"""

import logging
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from etude.config import Section
from etude.errors import UserError
from etude.students.sentence import SentenceEncoder, SentenceEncoderConfig, build_sentence_encoder
from etude.students.sentence_config import LoraConfig, MiniLMEncoderConfig, QwenEncoderConfig
from etude.teachers.minilm import MiniLM
from etude.training.chunked import encode_in_chunks
from tests.support.tiny_qwen import write_tiny_qwen

TEXTS = [
    "slow piano",
    "a calm and dreamy string quartet, then loud drums without guitar for the rest of it",
    "drums",
    "loud drums, slow guitar",
]
LORA = LoraConfig(rank=4, alpha=8)
NAMES = ("minilm", "qwen3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_qwen(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def frozen(folder: Path) -> dict[str, SentenceEncoder]:
    return {name: build(name, folder) for name in NAMES}


def build(name: str, folder: Path, seed: int = 0, **changed: object) -> SentenceEncoder:
    torch.manual_seed(seed)
    if name == "minilm":
        return build_sentence_encoder(MiniLMEncoderConfig.model_validate(changed)).eval()
    config = QwenEncoderConfig.model_validate({"model": str(folder), "max_tokens": 64, **changed})
    return build_sentence_encoder(config).eval()


def shaken(encoder: SentenceEncoder) -> SentenceEncoder:
    """Adapters that add something, as after some learning."""
    torch.manual_seed(5)
    for weight in encoder.trained:
        nn.init.normal_(weight, std=0.05)
    return encoder


def base_of(encoder: SentenceEncoder) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in encoder.named_parameters() if "lora_" not in n}


# Vectors


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_vector_depends_on_its_text_alone(frozen: dict[str, SentenceEncoder], name: str) -> None:
    encoder = frozen[name]
    together = encoder(*encoder.tokens(TEXTS, queries=True))
    assert together.shape == (4, encoder.dim)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together.norm(dim=1), torch.ones(4))
    for text, vector in zip(TEXTS, together, strict=True):
        alone = encoder(*encoder.tokens([text], queries=True))[0]
        torch.testing.assert_close(alone, vector, rtol=0, atol=1e-5)
    backwards = encoder(*encoder.tokens(TEXTS[::-1], queries=True)).flip(0)
    torch.testing.assert_close(backwards, together, rtol=0, atol=1e-5)
    assert (together @ together.T - torch.eye(4)).abs().max() < 0.99  # they are not all the same


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10)
@given(left=st.integers(0, 9), right=st.integers(0, 9), pad=st.integers(0, 255))
@torch.no_grad()
def test_padding_changes_nothing_whatever_its_side_and_its_id(
    frozen: dict[str, SentenceEncoder], name: str, left: int, right: int, pad: int
) -> None:
    encoder = frozen[name]
    ids, mask = encoder.tokens(TEXTS[:1], queries=False)
    around = nn.functional.pad(ids, (left, right), value=pad), nn.functional.pad(mask, (left, right))
    torch.testing.assert_close(encoder(*around), encoder(ids, mask), rtol=0, atol=1e-5)


@torch.no_grad()
def test_qwen_is_read_at_its_last_real_token(frozen: dict[str, SentenceEncoder]) -> None:
    """The end and the padding share their id, as in the real tokenizer, so only the mask can tell."""
    encoder = frozen["qwen3"]
    ids, mask = encoder.tokens(TEXTS, queries=False)
    end = encoder.reader.pad
    assert (ids[:, -1] == end).all()
    assert (ids[mask == 0] == end).all()
    assert (mask == 0).any()
    for row, ones, text in zip(ids, mask, TEXTS, strict=True):
        alone = row[ones == 1][None]
        assert alone[0, :-1].tolist() == encoder.reader.tokenizer.encode(text, add_special_tokens=False).ids
        last = encoder.model(input_ids=alone).last_hidden_state[0, -1]
        found = encoder(*encoder.tokens([text], queries=False))[0]
        torch.testing.assert_close(found, last / last.norm(), rtol=0, atol=1e-5)


def test_minilm_gives_the_teachers_vectors(frozen: dict[str, SentenceEncoder]) -> None:
    encoder, teacher = frozen["minilm"], MiniLM()
    with torch.no_grad():
        found = encoder(*encoder.tokens(TEXTS, queries=True)).numpy()
    assert (encoder.id, encoder.dim, encoder.license) == (teacher.id, teacher.dim, teacher.license)
    assert abs(found - teacher.embed(TEXTS)).max() < 1e-5


def test_only_queries_get_the_instruction(frozen: dict[str, SentenceEncoder]) -> None:
    encoder, word = frozen["qwen3"], ["drums"]
    said = encoder.reader.tokenizer.decode(encoder.tokens(word, queries=True)[0][0].tolist())
    assert said == (
        "Instruct: Given a description of music, retrieve the pieces of music that it describes\nQuery:drums"
    )
    assert encoder.reader.tokenizer.decode(encoder.tokens(word, queries=False)[0][0].tolist()) == "drums"
    plain = frozen["minilm"]
    assert torch.equal(plain.tokens(word, queries=True)[0], plain.tokens(word, queries=False)[0])


def test_the_instruction_is_a_setting(folder: Path) -> None:
    spoken = build("qwen3", folder, instruction="Find a song")
    decoded = spoken.reader.tokenizer.decode(spoken.tokens(["drums"], queries=True)[0][0].tolist())
    assert decoded == "Instruct: Find a song\nQuery:drums"
    silent = build("qwen3", folder, instruction=None)
    assert torch.equal(silent.tokens(["a"], queries=True)[0], silent.tokens(["a"], queries=False)[0])


@pytest.mark.parametrize(("name", "most"), [("minilm", 256), ("qwen3", 64)])
def test_what_is_too_long_is_cut_before_its_end_with_one_warning(
    frozen: dict[str, SentenceEncoder], name: str, most: int, caplog: pytest.LogCaptureFixture
) -> None:
    encoder, longer = frozen[name], "drums " * 300
    assert encoder.too_long(["drums", longer, "piano", longer]) == [1, 3]
    with caplog.at_level(logging.WARNING):
        ids, mask = encoder.tokens([longer, "drums", longer], queries=True)
    assert [one.getMessage() for one in caplog.records] == [
        f"2 texts have more than {most} tokens; only their first {most} count"
    ]
    whole = encoder.reader.tokenizer.encode(encoder.reader.prefix + longer).ids
    assert mask[0].sum() == ids.shape[1] == most
    assert ids[0].tolist() == [*whole[: most - 1], whole[-1]]


def test_the_prefix_counts_for_queries(frozen: dict[str, SentenceEncoder]) -> None:
    encoder = frozen["qwen3"]
    longer = ["drums " * n for n in range(1, 80)]
    as_queries, as_they_are = (encoder.too_long(longer, queries) for queries in (True, False))
    assert 0 < as_queries[0] < as_they_are[0]


@pytest.mark.parametrize("empty", ["", " \n"])
def test_an_empty_text_is_named(frozen: dict[str, SentenceEncoder], empty: str) -> None:
    for encoder in frozen.values():
        with pytest.raises(UserError, match=r"text 2 of 3 is empty: put words into it"):
            encoder.tokens(["piano", empty, "drums"], queries=True)
        with pytest.raises(UserError, match="is empty"):
            encoder.too_long([empty])


def test_no_texts_and_odd_ones_have_tokens(frozen: dict[str, SentenceEncoder]) -> None:
    for encoder in frozen.values():
        assert encoder.tokens([], queries=True)[0].shape == (0, 0)
        ids, mask = encoder.tokens(["\udcff drums", "Ü \x00 🥁"], queries=True)
        assert ids.dtype == mask.dtype == torch.int64
        assert encoder(ids, mask).isfinite().all()


# Adapters


@pytest.mark.parametrize("name", NAMES)
def test_a_frozen_encoder_has_nothing_to_learn_or_to_keep(
    frozen: dict[str, SentenceEncoder], name: str
) -> None:
    encoder = frozen[name].train()
    assert encoder.trained == []
    assert not any(p.requires_grad for p in encoder.parameters())
    assert encoder.state_dict() == {}
    ids, mask = encoder.tokens(TEXTS, queries=True)
    first, second = encoder(ids, mask), encoder(ids, mask)
    assert not first.requires_grad
    assert torch.equal(first, second)  # in training too: it has no dropout
    assert torch.equal(first, encoder.eval()(ids, mask))


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_adapters_change_nothing_at_the_start(
    frozen: dict[str, SentenceEncoder], folder: Path, name: str
) -> None:
    adapted, inputs = build(name, folder, lora=LORA), frozen[name].tokens(TEXTS, queries=True)
    torch.testing.assert_close(adapted(*inputs), frozen[name](*inputs), rtol=0, atol=1e-6)
    assert not torch.allclose(shaken(adapted)(*inputs), frozen[name](*inputs), atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_every_linear_layer_of_every_block_is_adapted(folder: Path, name: str) -> None:
    encoder = build(name, folder, lora=LORA)
    if name == "minilm":
        n_layers, shapes = 6, [(384, 384)] * 4 + [(384, 1536), (1536, 384)]
    else:
        n_layers, shapes = 2, [(32, 32), (32, 16), (32, 16), (32, 32), (32, 48), (32, 48), (48, 32)]
    assert sum(p.numel() for p in encoder.trained) == 4 * n_layers * sum(i + o for i, o in shapes)
    assert len(encoder.state_dict()) == len(encoder.trained) == 2 * n_layers * len(shapes)
    assert {id(p) for p in encoder.parameters() if p.requires_grad} == {id(p) for p in encoder.trained}


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_adapters_come_back_to_the_same_vectors(
    frozen: dict[str, SentenceEncoder], folder: Path, tmp_path: Path, name: str
) -> None:
    learned = nn.ModuleDict({"text": shaken(build(name, folder, lora=LORA)), "head": nn.Linear(2, 2)})
    torch.save(learned.state_dict(), tmp_path / "checkpoint.pt")
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert all("lora_" in key for key in kept if key.startswith("text."))
    again = nn.ModuleDict({"text": build(name, folder, seed=1, lora=LORA), "head": nn.Linear(2, 2)})
    inputs = frozen[name].tokens(TEXTS, queries=True)
    expected = learned["text"](*inputs)
    assert not torch.equal(again["text"](*inputs), expected)
    again.load_state_dict(kept)
    assert torch.equal(again["text"](*inputs), expected)
    alone = build(name, folder, seed=2, lora=LORA)
    alone.load_state_dict(learned["text"].state_dict())
    assert torch.equal(alone(*inputs), expected)


def test_a_state_that_is_not_this_encoders_is_refused(folder: Path) -> None:
    encoder = build("qwen3", folder, lora=LORA)
    state = encoder.state_dict()
    before = base_of(encoder)
    name = next(iter(state))
    frozen_name = next(iter(before))
    for wrong, said in (
        ({k: v for k, v in state.items() if k != name}, rf"Missing key\(s\).*{name}"),
        (state | {"model.base_model.more": torch.zeros(1)}, r"Unexpected key\(s\).*more"),
        (state | {frozen_name: torch.zeros(1)}, rf"Unexpected key\(s\).*{frozen_name}"),
        (build("qwen3", folder, lora=LoraConfig(rank=2)).state_dict(), "size mismatch"),
        ({}, "Missing key"),
    ):
        with pytest.raises(RuntimeError, match=said):
            encoder.load_state_dict(wrong)
    torch.testing.assert_close(base_of(encoder), before, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        build("qwen3", folder).load_state_dict(state)


def test_minilm_learns_through_its_adapters_alone(folder: Path) -> None:
    encoder = build("minilm", folder, lora=LORA).train()
    before = base_of(encoder)
    inputs = encoder.tokens(["piano", "drums"], queries=True)
    torch.manual_seed(0)
    target = nn.functional.normalize(torch.randn(2, 384), dim=1)
    optimizer = torch.optim.AdamW(encoder.trained, lr=1e-2)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = 1 - (encoder(*inputs) * target).sum(dim=1).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    torch.testing.assert_close(base_of(encoder), before, rtol=0, atol=0)
    assert all(p.grad is None for n, p in encoder.named_parameters() if "lora_" not in n)


def _gradients(encoder: SentenceEncoder, chunk: int | None = None) -> tuple[Tensor, list[Tensor]]:
    """Vectors and the adapters' gradients of one step with dropout."""
    shaken(encoder).train()
    torch.manual_seed(11)
    vectors = encode_in_chunks(encoder, encoder.tokens(TEXTS, queries=True), chunk)
    (vectors * torch.linspace(-1, 1, vectors.numel()).reshape(vectors.shape)).sum().backward()
    gradients = [parameter.grad for parameter in encoder.trained]
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)
    return vectors.detach(), [gradient for gradient in gradients if gradient is not None]


def test_checkpointed_layers_are_computed_twice_for_the_same_gradients(folder: Path) -> None:
    plain = build("qwen3", folder, lora=LORA)
    thrifty = build("qwen3", folder, lora=LORA, gradient_checkpointing=True)
    calls = {"plain": 0, "thrifty": 0}
    for name, encoder in (("plain", plain), ("thrifty", thrifty)):
        for module in encoder.modules():
            if type(module).__name__ == "Qwen3MLP":  # inside what is computed again

                def count(*_: object, name: str = name) -> None:
                    calls[name] += 1

                module.register_forward_pre_hook(count)
    expected, found = _gradients(plain), _gradients(thrifty)
    assert calls == {"plain": 2, "thrifty": 4}
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    with torch.inference_mode():
        assert thrifty.eval()(*thrifty.tokens(TEXTS, queries=True)).isfinite().all()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_cached_gradients_are_those_of_the_whole_batch(folder: Path, checkpointing: bool) -> None:
    lora = LoraConfig(rank=4, alpha=8, dropout=0)
    encoders = [
        build("qwen3", folder, lora=lora, gradient_checkpointing=checkpointing and chunk is not None)
        for chunk in (None, 2)
    ]
    expected, found = _gradients(encoders[0]), _gradients(encoders[1], 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_adapters_that_are_frozen_for_a_while_keep_nothing_for_a_gradient(folder: Path) -> None:
    encoder = build("qwen3", folder, lora=LORA, gradient_checkpointing=True).train()
    for weight in encoder.trained:
        weight.requires_grad_(False)
    assert not encoder(*encoder.tokens(TEXTS, queries=True)).requires_grad
    assert len(encoder.state_dict()) == len(encoder.trained) == 28


def test_autocast_and_half_precision_leave_float32_vectors_and_adapters(folder: Path) -> None:
    half = build("qwen3", folder, precision="bfloat16", lora=LORA)
    assert {p.dtype for n, p in half.named_parameters() if "lora_" not in n} == {torch.bfloat16}
    assert {p.dtype for p in half.trained} == {torch.float32}
    whole = build("qwen3", folder, lora=LORA)
    assert {p.dtype for p in whole.parameters()} == {torch.float32}  # auto, on a CPU
    inputs = whole.tokens(TEXTS, queries=True)
    exact = whole(*inputs)
    for encoder, enabled in ((half, False), (half, True), (whole, True)):
        with torch.autocast("cpu", torch.bfloat16, enabled):
            rough = encoder(*inputs)
        assert rough.dtype == torch.float32
        torch.testing.assert_close(rough.norm(dim=1), torch.ones(4))
        assert (rough * exact).sum(dim=1).min() > 0.99


# Configurations


class Holder(Section):
    text: SentenceEncoderConfig = MiniLMEncoderConfig()


def test_configurations_are_told_apart_by_name() -> None:
    adapter: TypeAdapter[Holder] = TypeAdapter(Holder)
    assert adapter.validate_python({}).text == MiniLMEncoderConfig(lora=None)
    lora = adapter.validate_python({"text": {"name": "minilm", "lora": {}}}).text.lora
    assert lora == LoraConfig(rank=16, alpha=32, dropout=0.1)
    qwen = adapter.validate_python({"text": {"name": "qwen3", "revision": "abc"}}).text
    assert isinstance(qwen, QwenEncoderConfig)
    assert (qwen.model, qwen.max_tokens, qwen.is_folder) == ("Qwen/Qwen3-Embedding-0.6B", 512, False)
    assert adapter.validate_python(adapter.dump_python(Holder(text=qwen))).text == qwen


def test_a_folder_is_meant_from_where_the_job_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert QwenEncoderConfig(model="./mine").model == str(tmp_path / "mine")
    assert QwenEncoderConfig(model="~/mine").model == str(Path.home() / "mine")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"model": "mine"}, "'mine' is no name on the hub"),
        ({"model": "/mine", "revision": "abc"}, "a folder has no revision: leave it out for /mine"),
        ({"gradient_checkpointing": True}, "for an encoder that learns: set lora"),
        ({"instruction": ""}, "instruction"),
        ({"precision": "float16"}, "precision"),
        ({"lora": {"rank": 0}}, "rank"),
        ({"lora": {"dropout": 1.0}}, "dropout"),
        ({"pooling": "mean"}, "pooling"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        QwenEncoderConfig.model_validate(wrong)
