"""From a backbone's features to the teacher's space."""

from torch import Tensor, nn
from torch.nn import functional

from etude.errors import UserError

# Mean and variance of gelu(x) for normal x of mean 0 and variance 1: 1 / (2 sqrt(pi)), and by integration.
GELU_MEAN, GELU_VARIANCE = 0.28209, 0.34556
# Of an untrained backbone's features over 32 demo pieces, without what all features have in common: 0.02 to
# 0.05 for mobilenet, dynamic_mobilenet and convnet.
POOLED_VARIANCE = 0.03


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
        _check_dim(self.norm.bias, mean_D, std_D)
        # What comes out of layer norm, before its weight and bias, has mean 0 and variance 1.
        self.norm.weight.data.copy_(std_D)
        self.norm.bias.data.copy_(mean_D)

    def forward(self, features_BF: Tensor) -> Tensor:
        """[b, n_features] to [b, dim]."""
        first_BD = self.linear1(features_BF)
        second_BD = self.dropout(self.linear2(functional.gelu(first_BD)))
        embedding_BD: Tensor = self.norm(first_BD + second_BD)
        return functional.normalize(embedding_BD, dim=1) if self.normalize else embedding_BD


class BatchNormHead(nn.Module):
    """Seed 2's head: a linear map to 512, batch norm, GELU and a linear map to the teacher's space.

    Features [b, n_features] become embeddings [b, dim], of length 1 if `normalize`. The seed has no dropout;
    here it lies before the second map.
    """

    HIDDEN = 512

    def __init__(self, n_features: int, dim: int, *, dropout: float, normalize: bool) -> None:
        super().__init__()
        self.linear1 = nn.Linear(n_features, self.HIDDEN)
        # The momentum that blocks.batch_norm explains.
        self.norm = nn.BatchNorm1d(self.HIDDEN, momentum=0.3)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(self.HIDDEN, dim)
        self.normalize = normalize

    def start_at(self, mean_D: Tensor, std_D: Tensor) -> None:
        """Give the untrained head the teacher's mean and standard deviation in every dimension.

        They hold in training mode, the deviation as a mean over the dimensions: how far one dimension is
        from its own depends on how its row of random weights lies to the features. With `normalize` they
        hold before the length is set to 1. Raises ValueError if a shape is not [dim].
        """
        _check_dim(self.linear2.bias, mean_D, std_D)
        # After batch norm and GELU all hidden values have these two moments, however they are correlated.
        weight_DH = self.linear2.weight.data
        weight_DH.mul_((std_D / (GELU_VARIANCE**0.5 * weight_DH.norm(dim=1)))[:, None])
        self.linear2.bias.data.copy_(mean_D - GELU_MEAN * weight_DH.sum(dim=1))

    def forward(self, features_BF: Tensor) -> Tensor:
        """[b, n_features] to [b, dim]. Raises UserError in training if b is 1."""
        if self.training and len(features_BF) == 1:
            raise UserError(
                "tinyclap's head normalises over the batch, and a batch of one segment has no variance: "
                "set training.batch_size to 2 or more"
            )
        hidden_BH = functional.gelu(self.norm(self.linear1(features_BF)))
        embedding_BD: Tensor = self.linear2(self.dropout(hidden_BH))
        return functional.normalize(embedding_BD, dim=1) if self.normalize else embedding_BD


class LinearHead(nn.Module):
    """Seed 1's head: one linear map, of features [b, n_features] that share one mean as long as nothing is
    learned.

    They become embeddings [b, dim], of length 1 if `normalize`; `variance` is that of an untrained feature.
    """

    def __init__(
        self, n_features: int, dim: int, *, dropout: float, normalize: bool, variance: float
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(n_features, dim)
        self.normalize = normalize
        self._variance = variance

    def start_at(self, mean_D: Tensor, std_D: Tensor) -> None:
        """Give the untrained head the teacher's mean and, about, its standard deviation in every dimension.

        With `normalize` these hold before the length is set to 1. Raises ValueError if a shape is not [dim].
        """
        _check_dim(self.linear.bias, mean_D, std_D)
        weight_DF = self.linear.weight.data
        weight_DF.sub_(weight_DF.mean(dim=1, keepdim=True))  # so that the features' common mean moves nothing
        weight_DF.mul_((std_D / (self._variance**0.5 * weight_DF.norm(dim=1)))[:, None])
        self.linear.bias.data.copy_(mean_D)

    def forward(self, features_BF: Tensor) -> Tensor:
        """[b, n_features] to [b, dim]."""
        embedding_BD: Tensor = self.linear(self.dropout(features_BF))
        return functional.normalize(embedding_BD, dim=1) if self.normalize else embedding_BD


def _check_dim(wanted: Tensor, mean_D: Tensor, std_D: Tensor) -> None:
    for name, values in (("mean", mean_D), ("std", std_D)):
        if values.shape != wanted.shape:
            raise ValueError(
                f"the head's embeddings have {wanted.numel()} dimensions, but the {name} to "
                f"start at has shape {list(values.shape)}: take both from the same teacher"
            )
