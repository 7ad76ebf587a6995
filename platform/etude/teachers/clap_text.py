"""CLAP's text encoder as a teacher: 512-d vectors of short texts, from a local ONNX file and tokenizer.

The file takes `input_ids` and `attention_mask`, int64 [b, 77], as RoBERTa's tokenizer makes them
(facts/audiomuse.md, b).
"""

import logging
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from etude.errors import UserError
from etude.teachers.onnx_file import OnnxFile, shapes_of

DIM = 512
MAX_TOKENS = 77
START, PAD, END = "<s>", "<pad>", "</s>"
IDS = {START: 0, PAD: 1, END: 2}  # RoBERTa counts positions from the padding's id on
log = logging.getLogger(__name__)


class ClapText:
    """A `TextTeacher`: a CLAP text encoder in an ONNX file, with a RoBERTa `tokenizer.json`, or its folder.

    `batch_size` texts go through the network at once; every text is padded to 77 tokens, so its neighbours
    do not matter. Raises UserError if a file is missing, or is not what CLAP needs, or if the two do not fit
    each other.
    """

    dim = DIM
    normalized = True
    license = "unknown: that of the CLAP file"

    def __init__(self, model: Path, tokenizer: Path, batch_size: int = 1, device: str = "cpu") -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        self._batch_size = batch_size
        self._tokenizer, content = _roberta(tokenizer)
        self._file = OnnxFile(model, device)
        well = {"input_ids", "attention_mask"}, {(2, MAX_TOKENS)}
        shapes = self._file.inputs
        lengths = {
            (len(shape), shape[-1] if isinstance(shape[-1], int) else MAX_TOKENS) for shape in shapes.values()
        }
        if (set(shapes), lengths) != well:
            raise UserError(
                f"{model} takes {shapes_of(shapes)}, not input_ids and attention_mask [batch, {MAX_TOKENS}] "
                "as CLAP's text encoder does"
            )
        self._check(IDS[END])
        try:
            # The highest id is one that a tokenizer of more words than the file's would get wrong.
            self._check(self._tokenizer.get_vocab_size() - 1)
        except UserError as error:
            raise UserError(
                f"{tokenizer} has {self._tokenizer.get_vocab_size()} tokens, of which {model} knows fewer: "
                "give the tokenizer.json that belongs to it"
            ) from error
        self.id = f"clap_text-{self._file.hash()}-{sha256(content).hexdigest()[:4]}"

    def _check(self, token: int) -> None:
        ids = np.full((self._batch_size, MAX_TOKENS), IDS[PAD], np.int64)
        ids[:, :3] = IDS[START], token, IDS[END]
        self._file.check({"input_ids": ids, "attention_mask": (ids != IDS[PAD]).astype(np.int64)}, DIM)

    def too_long(self, texts: Sequence[str]) -> list[int]:
        """Which texts have more than 77 tokens, the two at the ends included."""
        return [i for i, tokens in enumerate(self._tokens(texts)) if len(tokens) > MAX_TOKENS]

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [n, 512] of length 1. What is too long is cut, and a warning says how many that were."""
        tokens = self._tokens(texts)
        warn_of_cut(sum(len(one) > MAX_TOKENS for one in tokens), MAX_TOKENS)
        vectors = np.empty((len(texts), DIM), np.float32)
        for first in range(0, len(texts), self._batch_size):
            part = tokens[first : first + self._batch_size]
            ids = np.full((len(part), MAX_TOKENS), IDS[PAD], np.int64)
            mask = np.zeros_like(ids)
            for row, one in enumerate(part):
                cut = one if len(one) <= MAX_TOKENS else [*one[: MAX_TOKENS - 1], IDS[END]]
                ids[row, : len(cut)] = cut
                mask[row, : len(cut)] = 1
            found = self._file.run({"input_ids": ids, "attention_mask": mask})
            vectors[first : first + len(part)] = found / np.linalg.norm(found, axis=1, keepdims=True)
        return vectors

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return [one.ids for one in self._tokenizer.encode_batch(list(texts))]


def warn_of_cut(count: int, most: int) -> None:
    """Say that texts were cut, once for all of them."""
    if count:
        log.warning("%d texts have more than %d tokens; only their first %d count", count, most, most)


def load_tokenizer(path: Path) -> tuple[Any, bytes]:
    """A tokenizer without padding and truncation of its own, and its file's content. Raises UserError."""
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the tokenizer {file}: {error.strerror or error}") from None
    try:
        tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{file} is not a tokenizer.json of the tokenizers library ({error})") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer, content


def _roberta(path: Path) -> tuple[Any, bytes]:
    tokenizer, content = load_tokenizer(path)
    ids = {token: tokenizer.token_to_id(token) for token in IDS}
    if ids != IDS:
        raise UserError(f"{path} is not a RoBERTa tokenizer: it has the ids {ids}, CLAP needs {IDS}")
    ends = tokenizer.encode("a").ids
    if (ends[0], ends[-1]) != (IDS[START], IDS[END]):
        raise UserError(f"{path} does not put {START} and {END} around a text, as CLAP needs it")
    return tokenizer, content
