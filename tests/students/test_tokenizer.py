"""A tokenizer of captions: small, settled, and never at a loss."""

import hashlib
import json
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from etude.errors import UserError
from etude.students.tokenizer import SPECIAL, TokenizerConfig, train_tokenizer
from etude.students.tokens import Tokens

KINDS = ("wordpiece", "bpe")
WORDS = [
    *("slow", "calm", "piano", "violin", "cello", "minor", "major", "dance", "lively", "drums", "guitar"),
    *("the", "with", "folk-like", "Bach's", "jazz", "swing", "three-four", "strings", "é", "über", "120"),
]


def captions(n: int = 200) -> list[str]:
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=rng.randint(3, 12))) for _ in range(n)]


def trained(kind: str = "wordpiece", vocabulary: int = 1000) -> Tokens:
    config = TokenizerConfig.model_validate({"kind": kind, "vocabulary": vocabulary})
    return Tokens(train_tokenizer(captions(), config), 77)


TRAINED = {kind: trained(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_come_first_and_enclose_a_text(kind: str) -> None:
    tokens = TRAINED[kind]
    vocabulary = json.loads(tokens.content)["model"]["vocab"]
    assert [name for name, _ in sorted(vocabulary.items(), key=lambda item: item[1])][:4] == list(SPECIAL)
    assert sorted(vocabulary.values()) == list(range(tokens.vocabulary))
    assert tokens.pad == 0
    ids, mask = tokens.ids(["slow piano", "piano"])
    assert (ids[:, 0] == 2).all()
    assert [int(row[length - 1]) for row, length in zip(ids, mask.sum(dim=1), strict=True)] == [3, 3]
    assert tokens.ids([""])[0].tolist() == [[2, 3]]


@pytest.mark.parametrize("kind", KINDS)
def test_usual_words_are_one_token_whatever_their_case(kind: str) -> None:
    tokens = TRAINED[kind]
    ids, mask = tokens.ids(["slow piano", "Slow PIANO", "uber violin", "Über violin"])
    assert ids.tolist()[0] == ids.tolist()[1]
    assert ids.tolist()[2] == ids.tolist()[3]
    assert (mask.sum(dim=1) == 4).all()


_DIGEST = """
import hashlib, random, sys
from tests.students.test_tokenizer import captions
from etude.students.tokenizer import TokenizerConfig, train_tokenizer
texts = captions()
random.Random(sys.argv[1]).shuffle(texts)
for kind in ("wordpiece", "bpe"):
    content = train_tokenizer(texts, TokenizerConfig(kind=kind, vocabulary=1000))
    print(hashlib.sha256(content).hexdigest())
"""


@pytest.mark.slow
def test_the_same_texts_give_the_same_bytes_in_every_process_and_order() -> None:
    expected = [hashlib.sha256(TRAINED[kind].content).hexdigest() for kind in KINDS]
    for order in ("1", "2"):
        command = [sys.executable, "-c", _DIGEST, order]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.split() == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vocabulary", [300, 310])
def test_the_vocabulary_is_never_larger_than_asked_for(kind: str, vocabulary: int) -> None:
    many = [" ".join(chr(0x400 + i * 7 % 900) * 2 for i in range(k, k + 30)) for k in range(0, 900, 20)]
    config = TokenizerConfig.model_validate({"kind": kind, "vocabulary": vocabulary, "min_frequency": 1})
    assert Tokens(train_tokenizer([*captions(), *many], config), 77).vocabulary <= vocabulary


@settings(max_examples=200)
@given(st.text(max_size=30), st.sampled_from(KINDS))
def test_whatever_is_searched_for_becomes_tokens(text: str, kind: str) -> None:
    tokens = Tokens(TRAINED[kind].content, 200)
    ids, mask = tokens.ids([text])
    assert ids.shape == mask.shape
    assert 0 <= int(ids.min()) <= int(ids.max()) < tokens.vocabulary


def test_an_unseen_word_falls_into_pieces_and_an_unseen_script_is_unknown() -> None:
    tokens = TRAINED["wordpiece"]
    unseen = tokens.ids(["xylophonist"])[0][0].tolist()
    assert len(unseen) > 4
    assert 1 not in unseen
    assert tokens.ids(["日本"])[0].tolist() == [[2, 1, 1, 3]]
    assert 1 not in TRAINED["bpe"].ids(["日本"])[0][0].tolist()
    assert tokens.ids(["piano \udcff"])[0].shape[0] == 1  # bytes of a command line that are no text


@pytest.mark.parametrize("texts", [[], ["", "  "], ["slow piano"] * 500])
@pytest.mark.parametrize("kind", KINDS)
def test_too_few_texts_are_refused(texts: list[str], kind: str) -> None:
    config = TokenizerConfig.model_validate({"kind": kind})
    with pytest.raises(UserError, match=rf"{len(texts)} training captions with \d different words"):
        train_tokenizer(texts, config)


@pytest.mark.parametrize("wrong", [{"vocabulary": 30_001}, {"vocabulary": 299}, {"kind": "unigram"}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        TokenizerConfig.model_validate(wrong)
