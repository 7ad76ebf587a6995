"""A tokenizer of the words that captions use, learned from the captions of the training tracks only.

Its size decides the text student's: at seed 1's 30,000 tokens, a table of 256 numbers a token is nearly all
of it.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from etude.config import Section
from etude.errors import UserError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")  # their ids are 0 to 3
_INNER = "##"  # before a piece that does not begin its word
_PLAIN = "abcdefghijklmnopqrstuvwxyz0123456789"  # in every alphabet: an unseen word then falls into pieces
_FEWEST_WORDS = 10  # different ones; below, there is no language to learn pieces from


class TokenizerConfig(Section):
    """How texts become tokens. The largest vocabulary is seed 1's; 8,000 hold more than captions use."""

    kind: Literal["wordpiece", "bpe"] = Field(
        "wordpiece", description="pieces of words, or byte pairs, which know no unknown character"
    )
    vocabulary: int = Field(8_000, ge=300, le=30_000, description="tokens at most, the special ones included")
    min_frequency: int = Field(2, ge=1, description="times that a piece must occur to become a token")


def train_tokenizer(texts: Sequence[str], config: TokenizerConfig) -> bytes:
    """A tokenizer.json for `etude.students.tokens.Tokens`, the same bytes for the same texts in any order.

    Texts are lower-cased and lose their accents, as in BERT. What a text of later holds that these do not
    becomes pieces or [UNK]. Raises UserError if there are too few texts to learn from.
    """
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    plain = [normalizer.normalize_str(text.encode("utf-8", "replace").decode()) for text in texts]
    words = Counter(word for text in plain for word, _ in splitter.pre_tokenize_str(text))
    if len(words) < _FEWEST_WORDS:
        raise UserError(
            f"{len(texts)} training captions with {len(words)} different words are too few to learn a "
            f"tokenizer from ({_FEWEST_WORDS} words at least): prepare captions for more tracks"
        )
    tokenizer = _wordpiece(words, config) if config.kind == "wordpiece" else _byte_pairs(words, config)
    tokenizer.normalizer = normalizer
    cls, sep = SPECIAL.index("[CLS]"), SPECIAL.index("[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", cls), ("[SEP]", sep)]
    )
    content: str = tokenizer.to_str()
    return content.encode()


def _wordpiece(words: Counter[str], config: TokenizerConfig) -> Tokenizer:
    # At most half of the vocabulary for single characters, each of which is two tokens.
    alphabet = _alphabet(words, (config.vocabulary - len(SPECIAL)) // 4)
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]", continuing_subword_prefix=_INNER))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # The trainer numbers inner characters in the order of a hash table, another in every process, and equal
    # pairs go by number. As special tokens, for the time of training, they have a settled one.
    inner = [_INNER + character for character in alphabet]
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.vocabulary, min_frequency=config.min_frequency, special_tokens=[*SPECIAL, *inner],
        initial_alphabet=alphabet, limit_alphabet=len(alphabet), show_progress=False,
    )  # fmt: skip
    learner.train_from_iterator(_repeated(words), trainer)
    vocabulary = learner.get_vocab()
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", continuing_subword_prefix=_INNER))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=_INNER)
    return tokenizer


def _byte_pairs(words: Counter[str], config: TokenizerConfig) -> Tokenizer:
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)]
    )
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = splitter
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary, min_frequency=config.min_frequency, special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(_repeated(words), trainer)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _alphabet(words: Counter[str], most: int) -> list[str]:
    """The characters that get tokens: the plain ones, and as many others, the most frequent, as fit."""
    counts: Counter[str] = Counter()
    for word, times in words.items():
        for character in word:
            counts[character] += times
    others = sorted((c for c in counts if c not in _PLAIN), key=lambda c: (-counts[c], c))
    return sorted([*_PLAIN, *others[: most - len(_PLAIN)]])


def _repeated(words: Counter[str]) -> list[str]:
    """Every word as often as it occurs, in the order of the alphabet."""
    return [" ".join([word] * times) for word, times in sorted(words.items())]
