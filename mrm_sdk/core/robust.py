"""The robust personalization objective (RPO): an outer loss that leans on hard-to-learn users."""

from __future__ import annotations

import torch
from torch import Tensor


def robust_objective(losses: Tensor, *, ratio: float, gamma: float) -> Tensor:
    """Weighs each user's query loss by how hard that user is (arXiv 2601.18731, RPO).

    ``τ = quantile(L, 1 − ratio)`` and the objective is ``Σ σ((L − τ)/γ) · L``; neither τ nor the weights are
    detached. With ``gamma <= 0`` a hard mask ``L > τ`` stands in for the sigmoid, and ``ratio = 1`` with it keeps
    (nearly) every user.

    Args:
        losses: query loss of each user, [users].
        ratio: share of users that count as hard, in (0, 1].
        gamma: softness of the border, in nats.

    Returns:
        A scalar, in nats summed over users.
    """
    threshold = torch.quantile(losses, 1 - ratio)
    if gamma <= 0:
        return (losses * (losses > threshold).detach()).sum()
    return (torch.sigmoid((losses - threshold) / gamma) * losses).sum()


@torch.no_grad()
def robust_weights(losses: Tensor, *, ratio: float, gamma: float) -> Tensor:
    """How much each user counts under RPO where the objective is no sum of losses: ``σ((L − τ)/γ)``, of mean 1.

    Args:
        losses: query loss of each user, [users].
        ratio: share of users that count as hard, in (0, 1].
        gamma: softness of the border, in nats; infinite: all users count the same.

    Returns:
        [users]; all 1 if no user is above the threshold.
    """
    threshold = torch.quantile(losses, 1 - ratio)
    weights = torch.sigmoid((losses - threshold) / gamma) if gamma > 0 else (losses > threshold).to(losses)
    total = weights.mean()
    return weights / total if bool(total > 0) else torch.ones_like(losses)
