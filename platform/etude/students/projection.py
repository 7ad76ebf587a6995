"""From a text encoder's vector into the space of a frozen audio model: seed 3's head."""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from etude.config import Section
from etude.errors import UserError

WIDE = 16_384  # numbers of a space; beyond it the seed doubles the width, and the second map is factored
_HIDDEN, _HIDDEN_OF_WIDE = 1024, 2048
_RANK_OF_WIDE = 512


class ProjectionHeadConfig(Section):
    """How large the head is. Widths and dropout: facts/projection_and_emotion.md, a."""

    hidden: int | None = Field(
        None, ge=8, le=16_384, description="width between the maps; None: 1024, beyond 16,384 numbers 2048"
    )
    dropout: float = Field(0.1, ge=0, lt=1)
    rank: int | None = Field(
        None,
        ge=1,
        description="numbers through which the second map goes; None: beyond 16,384 numbers 512. From hidden "
        "on it would hold nothing back, and the map is a single one",
    )


class ProjectionHead(nn.Module):
    """A linear map, batch norm, GELU, dropout, a linear map, batch norm: [b, text_dim] to [b, dim].

    The audio side has no weights, so `dim` is the width that the space's vectors really have; nothing here
    has a default for it. The last batch norm gives each number the spread that is good for it, then every
    vector gets length 1.

    A space beyond 16,384 numbers has its second map in two factors through `rank` numbers, without a bias
    between. For MERT's 76,800 and text vectors of 2560, at the seed's hidden 2048, a single map makes it
    162,765,824 parameters: 0.65 GB, and 2.6 GB with gradients and AdamW's two moments, 97 % of it that map.
    Through 512 it has 45,849,600: 0.18 and 0.73 GB. 512 numbers are what CLAP and MuQ-MuLan have for all that
    they know of music and words, and a single map could only use `hidden` directions of the 76,800 either.
    """

    def __init__(self, text_dim: int, config: ProjectionHeadConfig, dim: int) -> None:
        super().__init__()
        hidden = config.hidden or (_HIDDEN_OF_WIDE if dim > WIDE else _HIDDEN)
        rank = config.rank or (_RANK_OF_WIDE if dim > WIDE else hidden)
        self.linear1 = nn.Linear(text_dim, hidden)
        # The momentum that blocks.batch_norm explains, in both.
        self.norm1 = nn.BatchNorm1d(hidden, momentum=0.3)
        self.dropout = nn.Dropout(config.dropout)
        self.narrow = nn.Linear(hidden, rank, bias=False) if rank < hidden else nn.Identity()
        self.linear2 = nn.Linear(min(rank, hidden), dim)
        self.norm2 = nn.BatchNorm1d(dim, momentum=0.3)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def start_at(self, mean_D: Tensor, std_D: Tensor) -> None:
        """Begin with vectors that lie where the space's do: around their mean, as widely spread."""
        self.norm2.bias.data.copy_(mean_D)
        self.norm2.weight.data.copy_(std_D)

    def forward(self, text_BT: Tensor) -> Tensor:
        """Vectors [b, dim] of length 1, in float32 whatever the autocast.

        Raises UserError in training if b is 1.
        """
        if self.training and len(text_BT) == 1:
            raise UserError(
                "the projection head normalises over the batch, and a single text has no variance: choose "
                "training.batch_size, and the chunks if there are any, so that none holds one text alone"
            )
        hidden_BH = self.dropout(functional.gelu(self.norm1(self.linear1(text_BT))))
        projected_BD = self.linear2(self.narrow(hidden_BH))
        with torch.autocast(text_BT.device.type, enabled=False):
            return functional.normalize(self.norm2(projected_BD.float()), dim=1)
