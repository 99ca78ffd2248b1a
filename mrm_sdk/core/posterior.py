"""How sure the adapted weights are: the Laplace posterior; imports torch and this folder only."""

from __future__ import annotations

import torch
from torch import Tensor

from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.inner_loop import Prior, derivatives


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
    _, hessian = derivatives(weights, pairs, prior)
    inverse: Tensor = torch.linalg.inv(hessian)
    return inverse
