"""A frozen encoder as a text teacher: each text's vector is computed once, under a name that says how."""

from pathlib import Path

import numpy as np
import pytest

from etude.data.text import CachedTeacher
from etude.errors import UserError
from etude.students.frozen_sentences import FrozenSentences
from etude.students.sentence import SentenceEncoder, build_sentence_encoder
from etude.students.sentence_config import LoraConfig, MiniLMEncoderConfig, QwenEncoderConfig
from etude.teachers.minilm import MiniLM
from tests.support.tiny_qwen import write_tiny_qwen

TEXTS = ["slow piano", "a calm and dreamy string quartet, then loud drums", "drums", "slow piano", "guitar"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_qwen(tmp_path_factory.mktemp("qwen"))


def qwen(folder: Path, **changed: object) -> SentenceEncoder:
    config = {"model": str(folder), "max_tokens": 64, **changed}
    return build_sentence_encoder(QwenEncoderConfig.model_validate(config))


def test_vectors_are_those_of_queries_in_order(folder: Path) -> None:
    encoder = qwen(folder).eval()
    teacher = FrozenSentences(encoder, batch_size=2)
    found = teacher.embed(TEXTS)
    assert (found.shape, found.dtype) == ((5, 32), np.float32)
    assert (teacher.dim, teacher.normalized, teacher.license) == (32, True, encoder.license)
    for text, vector in zip(TEXTS, found, strict=True):
        alone = encoder(*encoder.tokens([text], queries=True))[0].numpy()
        np.testing.assert_allclose(vector, alone, atol=1e-5)
    assert teacher.embed([]).shape == (0, 32)
    assert teacher.too_long(["drums", "drums " * 60]) == [1]


def test_minilm_is_the_teacher_of_that_name() -> None:
    teacher = FrozenSentences(build_sentence_encoder(MiniLMEncoderConfig()))
    np.testing.assert_allclose(teacher.embed(TEXTS), MiniLM().embed(TEXTS), atol=1e-5)


def test_a_text_is_computed_once(folder: Path, tmp_path: Path) -> None:
    encoder = qwen(folder)
    n_texts: list[int] = []
    encoder.register_forward_hook(lambda _module, inputs, _output: n_texts.append(len(inputs[0])))
    cached = CachedTeacher(FrozenSentences(encoder), tmp_path)
    first = cached.embed(TEXTS)
    np.testing.assert_array_equal(cached.embed(TEXTS[::-1])[::-1], first)
    np.testing.assert_array_equal(CachedTeacher(FrozenSentences(encoder), tmp_path).embed(TEXTS), first)
    assert sum(n_texts) == 4  # of five texts, two alike
    with pytest.raises(UserError, match=r"longer than qwen3-.* takes"):
        cached.embed(["drums " * 60])


def test_the_id_names_all_that_a_vector_depends_on(folder: Path) -> None:
    ids = {
        FrozenSentences(qwen(folder, **changed)).id
        for changed in ({}, {"instruction": "Find"}, {"max_tokens": 65}, {"precision": "bfloat16"})
    }
    assert len(ids) == 4
    assert FrozenSentences(qwen(folder), batch_size=3).id == FrozenSentences(qwen(folder)).id
    assert FrozenSentences(qwen(folder)).id.startswith(qwen(folder).id)


def test_what_could_change_is_not_kept(folder: Path) -> None:
    with pytest.raises(ValueError, match="encoder that learns must not be kept: build it without lora"):
        FrozenSentences(qwen(folder, lora=LoraConfig()))
    with pytest.raises(ValueError, match="batch_size is 0"):
        FrozenSentences(qwen(folder), batch_size=0)
