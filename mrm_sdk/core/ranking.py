"""Which comparisons a model ranks as the user did."""

from __future__ import annotations

import torch
from torch import Tensor

from mrm_sdk.core.batching import Pairs


def right(margin: Tensor) -> Tensor:
    """1 where the chosen response scores higher, ½ where both score alike, else 0: [..., pairs]."""
    return (margin > 0).to(margin) + (margin == 0).to(margin) / 2


def decided(pairs: Pairs) -> Tensor:
    """Which rows can be ranked right or wrong, [..., pairs] bool: neither padding nor ties."""
    return (pairs.strength > 0) & (pairs.tie == 0)


def mean_decided(values: Tensor, pairs: Pairs) -> Tensor:
    """Mean of ``values`` [..., pairs] over decided comparisons, [...]; NaN where there are none."""
    counted = decided(pairs)
    return torch.where(counted, values, 0.0).sum(-1) / counted.sum(-1)
