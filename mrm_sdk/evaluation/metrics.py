"""Numbers per user and over users; imports torch only."""

from __future__ import annotations

import torch
from torch import Tensor

from mrm_sdk.core.batching import Pairs


def accuracy(query: Pairs, weights: Tensor) -> Tensor:
    """Share of each user's decided query comparisons in which the chosen response scores higher.

    Equal scores count half; ties say nothing of an order and are left out.

    Args:
        query: [users, pairs, ...].
        weights: [users, K].

    Returns:
        [users], in [0, 1]; NaN for a user without a decided comparison.
    """
    margin = (query.z @ weights.unsqueeze(-1)).squeeze(-1)
    decided = (query.strength > 0) & (query.tie == 0)
    right = (margin > 0).to(margin) + (margin == 0).to(margin) / 2
    return (right * decided).sum(-1) / decided.sum(-1)


def worst_share(values: Tensor, share: float) -> float:
    """Mean over the ``share`` of users (at least one) whose values are lowest."""
    count = max(1, int(share * len(values)))
    return float(torch.sort(values).values[:count].mean())
