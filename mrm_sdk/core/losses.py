"""The Bradley–Terry likelihood of comparisons, with ties and strengths."""

from __future__ import annotations

import torch
from torch import Tensor


def bradley_terry(margin: Tensor, tie: Tensor) -> Tensor:
    """Negative log-likelihood of each comparison (arXiv 2601.18731, eq. 1, with ties added).

    A tie is the loss of both directions at half weight: ``½ softplus(−m) + ½ softplus(m) = softplus(−m) + m / 2``.

    Args:
        margin: ``r(chosen) − r(rejected)``, [..., pairs].
        tie: 1 for a tie, else 0, [..., pairs].

    Returns:
        [..., pairs], in nats; stable for margins of any size.
    """
    return torch.nn.functional.softplus(-margin) + tie * margin / 2


def weighted_mean(loss: Tensor, strength: Tensor) -> Tensor:
    """Mean over comparisons, weighted by strength: [..., pairs] -> [...]; 0 where all strengths are 0."""
    return (loss * strength).sum(-1) / strength.sum(-1).clamp_min(torch.finfo(loss.dtype).tiny)
