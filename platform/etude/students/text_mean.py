"""The text encoder of seed 1: the mean of a text's tokens, and one linear map.

Upstream averages the padding too (facts/audiomuse.md, seed 000), so that a short text means mostly nothing;
here the mask leaves it out. The order of words changes nothing.
"""

from torch import Tensor, nn

from etude.students.head import LinearHead
from etude.students.text_encoder import TextEncoder, TextStudentConfig

_USUAL_TOKENS = 16  # of a caption: what the mean over a table of variance 1 then varies by is known


class MeanTextStudent(TextEncoder):
    """A table of vectors [vocabulary, hidden], their mean over the text, a linear map to `dim`."""

    def __init__(self, config: TextStudentConfig, *, vocabulary: int, dim: int, normalize: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, config.hidden)
        self.head = LinearHead(
            config.hidden,
            dim,
            dropout=config.dropout,
            normalize=normalize,
            variance=1 / _USUAL_TOKENS,
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeddings [b, dim]. Both inputs are int64 [b, t] with any t; the mask is 1 on text."""
        # The table's own call would make a node named `embedding`, which is what the ONNX output is called.
        token_NH = self.tokens.weight.index_select(0, input_ids.flatten())
        mask_BT = attention_mask.to(token_NH.dtype)
        token_BTH = token_NH.reshape(*input_ids.shape, -1) * mask_BT[:, :, None]
        mean_BH = token_BTH.sum(dim=1) / mask_BT.sum(dim=1, keepdim=True).clamp_min(1)
        embedding: Tensor = self.head(mean_BH)
        return embedding
