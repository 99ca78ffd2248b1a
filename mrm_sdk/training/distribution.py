"""How users' weights are distributed, and single users' weights under such a prior."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mrm_sdk.core.batching import Pairs

_STEPS = 6
_LARGEST_STEP = 4.0
# Above this, a comparison leaves float32 too few digits to factor its user's matrix.
_LARGEST_CURVATURE = 1e5


class WeightDistribution(NamedTuple):
    """How weights differ between users: w ~ N(mean, covariance).

    Args:
        mean: w0, [R] float64.
        covariance: Σ = Λ⁻¹, [R, R] float64.
    """

    mean: Tensor
    covariance: Tensor

    def to(self, device: torch.device) -> WeightDistribution:
        """The same on another device."""
        return WeightDistribution(self.mean.to(device), self.covariance.to(device))


class Posterior(NamedTuple):
    """Users' weights given their comparisons, to second order, in coordinates where the prior's covariance is I.

    Args:
        offset: posterior mean − prior mean, [users, R].
        explained: rows whose Gram matrix is the users' summed I − posterior covariance, [users, pairs, R].
    """

    offset: Tensor
    explained: Tensor


def adapt_white(pairs: Pairs, mean: Tensor, *, steps: int = _STEPS) -> Posterior:
    """Adapts users by Newton steps on J in the space of comparisons: users have fewer of them than directions.

    Args:
        pairs: comparisons in coordinates where Λ is I, [users, pairs, R].
        mean: w0 in them, [R].
        steps: of Newton's method; none moves a margin by more than 4 nats, which could overshoot if a user never errs.

    Returns:
        The Laplace posterior of each user (Rasmussen and Williams, Gaussian Processes, algorithm 3.1).
    """
    if float((pairs.strength * pairs.z.square().sum(-1)).max()) > _LARGEST_CURVATURE and pairs.z.dtype == torch.float32:
        exact = adapt_white(Pairs(*(field.double() for field in pairs)), mean.double(), steps=steps)
        return Posterior(*(field.float() for field in exact))
    z, strength, tie = pairs
    gram = z @ z.mT
    margin = start = z @ mean
    dual = torch.zeros_like(margin)
    identity = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    for _ in range(steps):
        lost = torch.sigmoid(-margin)
        root = (strength * lost * (1 - lost)).sqrt()
        factor = torch.linalg.cholesky(identity + root.unsqueeze(-1) * gram * root.unsqueeze(-2))
        target = root**2 * (margin - start) + strength * (lost - tie / 2)
        inner = (root * (gram @ target.unsqueeze(-1)).squeeze(-1)).unsqueeze(-1)
        new_dual = target - root * torch.cholesky_solve(inner, factor).squeeze(-1)
        move = start + (gram @ new_dual.unsqueeze(-1)).squeeze(-1) - margin
        largest = torch.where(strength > 0, move, 0.0).abs().amax(-1, keepdim=True)
        part = _LARGEST_STEP / largest.clamp_min(_LARGEST_STEP)
        dual, margin = dual + part * (new_dual - dual), margin + part * move
    explained = torch.linalg.solve_triangular(factor, root.unsqueeze(-1) * z, upper=False)
    return Posterior((z.mT @ dual.unsqueeze(-1)).squeeze(-1), explained)


def root_of(covariance: Tensor) -> Tensor:
    """Cholesky factor, with a little added to the diagonal for directions without variance."""
    size = len(covariance)
    noise = 1e-9 * covariance.diagonal().mean().clamp_min(1e-12)
    identity = torch.eye(size, dtype=covariance.dtype, device=covariance.device)
    root: Tensor = torch.linalg.cholesky(covariance + noise * identity)
    return root
