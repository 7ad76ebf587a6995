"""From a backbone's features to the teacher's space."""

from torch import Tensor, nn
from torch.nn import functional


class ProjectionHead(nn.Module):
    """A linear map, a residual second one, and layer norm: facts/audiomuse.md, c, after tinyCLAP.

    Features [b, n_features] become embeddings [b, dim], of length 1 if `normalize`.
    """

    def __init__(self, n_features: int, dim: int, *, dropout: float, normalize: bool) -> None:
        super().__init__()
        self.linear1 = nn.Linear(n_features, dim, bias=False)
        self.linear2 = nn.Linear(dim, dim, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)
        self.normalize = normalize

    def start_at(self, mean_D: Tensor, std_D: Tensor) -> None:
        """Give the untrained head the teacher's mean and standard deviation in every dimension.

        With `normalize` these hold before the length is set to 1. Raises ValueError if a shape is not [dim].
        """
        for name, values in (("mean", mean_D), ("std", std_D)):
            if values.shape != self.norm.weight.shape:
                raise ValueError(
                    f"the head's embeddings have {self.norm.weight.numel()} dimensions, but the {name} to "
                    f"start at has shape {list(values.shape)}: take both from the same teacher"
                )
        # What comes out of layer norm, before its weight and bias, has mean 0 and variance 1.
        self.norm.weight.data.copy_(std_D)
        self.norm.bias.data.copy_(mean_D)

    def forward(self, features_BF: Tensor) -> Tensor:
        """[b, n_features] to [b, dim]."""
        first_BD = self.linear1(features_BF)
        second_BD = self.dropout(self.linear2(functional.gelu(first_BD)))
        embedding_BD: Tensor = self.norm(first_BD + second_BD)
        return functional.normalize(embedding_BD, dim=1) if self.normalize else embedding_BD
