"""The text students: a small transformer over tokens here, `text_mean.py` beside it.

The transformer's table of tokens is factorised (Lan et al., arXiv:1909.11942): a narrow vector a token and
one linear map to the width of the layers, so that 30,522 tokens cost 2 million parameters instead of 8.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from etude.students.head import ProjectionHead
from etude.students.text_encoder import TextEncoder, TextStudentConfig
from etude.students.text_mean import MeanTextStudent

__all__ = ["MeanTextStudent", "TextStudent", "TextStudentConfig", "build_text_student", "sinusoids"]

_HIDDEN_BY_MASK = -1e4  # added to a score: nothing is left of it, and a row that is all mask stays finite


def build_text_student(
    config: TextStudentConfig, *, vocabulary: int, dim: int, normalize: bool
) -> TextEncoder:
    """A new text student for ids below `vocabulary`; `torch.manual_seed` before it decides its weights."""
    student = TextStudent if config.name == "transformer" else MeanTextStudent
    return student(config, vocabulary=vocabulary, dim=dim, normalize=normalize)


class TextStudent(TextEncoder):
    """Token ids [b, t] and their mask [b, t] to embeddings [b, dim], of length 1 if `normalize`.

    Padding comes after the text, and changes nothing: attention and mean leave out what the mask leaves out.
    """

    positions: Tensor

    def __init__(self, config: TextStudentConfig, *, vocabulary: int, dim: int, normalize: bool) -> None:
        super().__init__()
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
