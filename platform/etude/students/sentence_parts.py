"""What a pretrained text encoder consists of: a frozen network, and the way its makers give it texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from etude.errors import UserError
from etude.students.tokens import readable
from etude.teachers.clap_text import warn_of_cut


@dataclass(frozen=True)
class Reader:
    """How an encoder's texts become tokens."""

    tokenizer: Any  # of the tokenizers library, without padding and truncation of its own
    max_tokens: int  # those that the tokenizer adds included
    pad: int
    pads_left: bool
    prefix: str = ""  # of queries alone

    def too_long(self, texts: Sequence[str], queries: bool) -> list[int]:
        """Which texts have more than `max_tokens`. Raises UserError if one is empty."""
        return [i for i, ids in enumerate(self._encode(texts, queries)) if len(ids) > self.max_tokens]

    def ids(self, texts: Sequence[str], queries: bool) -> list[list[int]]:
        """The tokens of every text; what is too long is cut, and a warning says how many that were.

        Raises UserError if a text is empty.
        """
        found = self._encode(texts, queries)
        warn_of_cut(sum(len(ids) > self.max_tokens for ids in found), self.max_tokens)
        # The tokenizer's last token stays: it marks the end, where some networks are read.
        return [
            ids if len(ids) <= self.max_tokens else [*ids[: self.max_tokens - 1], ids[-1]] for ids in found
        ]

    def padded(self, ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """(input_ids [b, t], attention_mask [b, t]), both int64, as long as the longest text."""
        longest = max((len(one) for one in ids), default=0)
        input_ids = torch.full((len(ids), longest), self.pad, dtype=torch.int64)
        attention_mask = torch.zeros_like(input_ids)
        for row, one in enumerate(ids):
            place = slice(longest - len(one), None) if self.pads_left else slice(len(one))
            input_ids[row, place] = torch.tensor(one)
            attention_mask[row, place] = 1
        return input_ids, attention_mask

    def _encode(self, texts: Sequence[str], queries: bool) -> list[list[int]]:
        for number, text in enumerate(texts, 1):
            if not text.strip():
                raise UserError(f"text {number} of {len(texts)} is empty: put words into it, or leave it out")
        prefix = self.prefix if queries else ""
        encoded = self.tokenizer.encode_batch([prefix + readable(text) for text in texts])
        return [one.ids for one in encoded]


@dataclass(frozen=True)
class Pretrained:
    """A text encoder as published."""

    id: str  # name, and hash of the weights
    license: str
    dim: int
    model: Any  # of transformers, frozen: ids, mask and positions [b, t] to last_hidden_state [b, t, dim]
    reader: Reader
    pool: Callable[[Tensor, Tensor], Tensor]  # last_hidden_state and mask to float32 [b, dim]
    targets: tuple[str, ...]  # the linear layers that LoRA adapts
    exportable: bool  # to one ONNX file, whose limit is 2 GB
