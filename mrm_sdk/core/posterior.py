"""How sure the adapted weights are: the Laplace posterior."""

from __future__ import annotations

import torch
from torch import Tensor

from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.inner_loop import Prior, curvature


@torch.no_grad()
def laplace_covariance(weights: Tensor, pairs: Pairs, prior: Prior) -> Tensor:
    """Inverse Hessian of J at the adapted weights, the posterior covariance to second order.

    Args:
        weights: adapted weights, [users, K].
        pairs: the comparisons that they were adapted to.
        prior: where they started.

    Returns:
        [users, K, K]; for a user without comparisons the inverse of the prior's precision.
    """
    inverse: Tensor = torch.linalg.inv(curvature(weights, pairs, prior))
    return inverse


def moderated(margin: Tensor, variance: Tensor) -> Tensor:
    """A margin as predictions should use it, closer to 0 the less sure the weights are (MacKay 1992).

    ``σ(margin / √(1 + π · variance / 8))`` is close to the mean of ``σ`` over the posterior.

    Args:
        margin: ``w · z`` at the adapted weights, [..., pairs].
        variance: ``zᵀ S z`` under their covariance S, [..., pairs].
    """
    return margin / torch.sqrt(1 + torch.pi / 8 * variance.clamp_min(0))
