"""One number from named loss terms."""

from collections.abc import Mapping

import torch
from torch import Tensor


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Sum of the terms times their weights; a term without a weight is an invariant broken."""
    assert set(terms) <= set(weights), f"terms without a weight: {set(terms) - set(weights)}"
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()
