"""J as the paper's reader would write it down: what derivatives and minima are checked against."""

from __future__ import annotations

from torch import Tensor

from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.inner_loop import Prior
from mrm_sdk.core.losses import bradley_terry


def objective(weights: Tensor, pairs: Pairs, prior: Prior) -> Tensor:
    """``J(w) = ρ Σ strength · loss(w · z) + ½ (w − w0)ᵀ Λ (w − w0)`` of each user: [users, K] -> [users]."""
    margin = (pairs.z @ weights.unsqueeze(-1)).squeeze(-1)
    data = (pairs.strength * bradley_terry(margin, pairs.tie)).sum(-1)
    offset = weights - prior.w0
    return prior.rho * data + ((offset @ prior.precision) * offset).sum(-1) / 2
