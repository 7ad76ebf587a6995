"""Qwen3-Embedding's files: read from a folder or the Hugging Face cache, and refused when they do not fit.

The weights are small and random (tests/support/tiny_qwen.py); formats, cache and libraries are the real ones.
"""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tokenizers import Tokenizer, models, processors

from etude.audio.torchaudio_cpu import import_torchaudio
from etude.errors import UserError
from etude.students.lora import with_lora
from etude.students.sentence import SentenceEncoder, build_sentence_encoder
from etude.students.sentence_config import LoraConfig, QwenEncoderConfig
from etude.students.sentence_qwen import TARGETS
from tests.support.tiny_qwen import END, cached_as, change_json, write_tiny_qwen

NAME = "Qwen/Qwen3-Embedding-0.6B"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_qwen(tmp_path / "qwen")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache, without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def load(model: Path | str, **changed: object) -> SentenceEncoder:
    return build_sentence_encoder(QwenEncoderConfig.model_validate({"model": str(model), **changed}))


@torch.no_grad()
def vector(encoder: SentenceEncoder) -> torch.Tensor:
    out: torch.Tensor = encoder(*encoder.tokens(["slow piano"], queries=True))
    return out


@pytest.mark.parametrize("published", [False, True])
@torch.no_grad()
def test_the_network_is_the_one_that_transformers_loads(folder: Path, published: bool) -> None:
    """Also by a configuration as it is published, in an older version's words."""
    import_torchaudio()
    from transformers import AutoModel

    if published:
        content = json.loads((folder / "config.json").read_text())
        for newer in ("rope_parameters", "layer_types", "dtype"):
            content.pop(newer)
        content |= {"rope_theta": 50.0, "rope_scaling": None, "torch_dtype": "bfloat16"}
        (folder / "config.json").write_text(json.dumps(content))
    encoder = load(folder)
    theirs = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    assert theirs.config.rope_parameters["rope_theta"] == (50 if published else 10_000)
    ids, mask = encoder.tokens(["slow piano"], queries=True)
    last = theirs(input_ids=ids, attention_mask=mask).last_hidden_state[0, -1]
    torch.testing.assert_close(encoder(ids, mask)[0], last / last.norm(), rtol=0, atol=1e-6)


def test_the_id_goes_by_weights_and_tokenizer(folder: Path, tmp_path: Path) -> None:
    first = load(folder)
    assert first.id.startswith("qwen3-")
    assert first.license == f"unknown: that of {folder}"
    assert load(folder, lora=LoraConfig(), instruction=None).id == first.id
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens(["zither"])
    tokenizer.save(str(folder / "tokenizer.json"))
    other_words = load(folder).id
    state = safetensors.torch.load_file(folder / "model.safetensors")
    state["norm.weight"] += 1e-3
    safetensors.torch.save_file(state, folder / "model.safetensors")
    assert len({first.id, other_words, load(folder).id}) == 3


def test_parts_and_a_language_models_names_are_the_same_weights(folder: Path) -> None:
    """The 4B comes in parts; some files name the network `model.`, beside a language model's last layer."""
    expected = vector(load(folder))
    state = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    named = {f"model.{name}": value for name, value in state.items()}
    named["lm_head.weight"] = torch.zeros(3, 32)
    names = sorted(named)
    for part, some in enumerate((names[::2], names[1::2]), 1):
        file = folder / f"model-{part:05d}-of-00002.safetensors"
        safetensors.torch.save_file({name: named[name] for name in some}, file)
    torch.testing.assert_close(vector(load(folder)), expected, rtol=0, atol=0)


def test_an_end_that_the_tokenizers_file_leaves_out_is_put_there(folder: Path) -> None:
    expected = vector(load(folder))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.testing.assert_close(vector(load(folder)), expected, rtol=0, atol=0)


def test_a_published_name_comes_from_the_cache(folder: Path, cache: Path) -> None:
    expected = vector(load(folder))
    cached_as(NAME, folder, cache)
    encoder = load(NAME)
    torch.testing.assert_close(vector(encoder), expected, rtol=0, atol=0)
    assert encoder.license == "Apache-2.0"
    assert load(NAME, revision="c" * 40).id == encoder.id


@pytest.mark.parametrize(
    ("revision", "command"),
    [(None, f"`hf download {NAME}`"), ("d" * 40, f"`hf download {NAME} --revision {'d' * 40}`")],
)
def test_a_model_that_is_not_here_is_named_with_the_command_that_brings_it(
    folder: Path, cache: Path, revision: str | None, command: str
) -> None:
    if revision:
        cached_as(NAME, folder, cache)  # another commit than is wanted
    with pytest.raises(UserError, match=r"is not in the Hugging Face cache and cannot") as caught:
        load(NAME, revision=revision)
    assert command in str(caught.value)


def test_files_that_do_not_serve_are_refused(folder: Path) -> None:
    config, weights, words = (folder / f for f in ("config.json", "model.safetensors", "tokenizer.json"))
    original = {file: file.read_bytes() for file in (config, weights, words)}
    state = safetensors.torch.load(original[weights])

    def save(**changed: torch.Tensor | None) -> None:
        new = {name: value for name, value in (state | changed).items() if value is not None}
        safetensors.torch.save_file(new, weights)

    def endless() -> None:
        tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="b"))
        tokenizer.save(str(words))

    def pickled() -> None:
        weights.unlink()
        torch.save(state, folder / "pytorch_model.bin")

    for damage, said in (
        (config.unlink, "cannot read .*config.json: No such file"),
        (lambda: config.write_text("{"), "config.json is damaged"),
        (lambda: config.write_text("[]"), "holds a network of type None, not a qwen3"),
        (lambda: change_json(config, model_type="qwen2"), "holds a network of type qwen2, not a qwen3"),
        (
            lambda: change_json(config, hidden_size=64),
            r"does not fit together: config.json wants embed_tokens",
        ),
        (
            lambda: save(**{"norm.weight": None}),
            r"wants norm.weight of shape \[32\], the weights hold nothing",
        ),
        (lambda: save(adapter=torch.zeros(2)), r"wants adapter of shape nothing, the weights hold \[2\]"),
        (lambda: weights.write_bytes(original[weights][:-9]), "model.safetensors is damaged"),
        (pickled, r"holds no model.safetensors.*pickled weights \(.bin, .pt\) are never read"),
        (words.unlink, "cannot read the tokenizer"),
        (lambda: words.write_text("{}"), "is not a tokenizer.json"),
        (endless, r"does not end a text with <\|endoftext\|> nor with another token"),
    ):
        damage()
        with pytest.raises(UserError, match=said):
            load(folder)
        for file, content in original.items():
            file.write_bytes(content)
    load(folder)


def test_an_instruction_leaves_room_for_a_query(folder: Path) -> None:
    with pytest.raises(UserError, match=r"the instruction takes \d+ of 16 tokens.*raise max_tokens"):
        load(folder, max_tokens=16)
    assert load(folder, max_tokens=16, instruction=None).too_long(["drums"]) == []


def test_code_that_lies_beside_the_weights_is_not_run(folder: Path) -> None:
    change_json(folder / "config.json", auto_map={"AutoModel": "evil.Evil"})
    (folder / "evil.py").write_text("raise AssertionError('run')")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "somewhere/else"}))
    assert vector(load(folder)).isfinite().all()


def test_adapters_of_the_4b_have_the_published_size() -> None:
    """Without weights: shapes of facts/projection_and_emotion.md, a. 33,030,144 is its figure for rank 16."""
    import_torchaudio()
    from transformers import Qwen3Config, Qwen3Model

    with torch.device("meta"):
        config = Qwen3Config(
            vocab_size=1000, hidden_size=2560, num_hidden_layers=36, num_attention_heads=32,
            num_key_value_heads=8, head_dim=128, intermediate_size=9728,
        )  # fmt: skip
        adapted = with_lora(Qwen3Model(config).requires_grad_(False), TARGETS, LoraConfig())
    assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == 33_030_144


def test_the_tiny_tokenizer_ends_and_pads_as_the_real_one(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode("drums").ids[-1] == tokenizer.padding["pad_id"] == tokenizer.token_to_id(END)
