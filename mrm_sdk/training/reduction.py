"""From the distribution of users' weights in R directions to K base rewards."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mrm_sdk.core.inner_loop import Prior
from mrm_sdk.training.basis import Basis
from mrm_sdk.training.empirical_bayes import WeightDistribution, root_of
from mrm_sdk.training.model import BaseRewards


class Reduced(NamedTuple):
    """K base rewards ``projections @ directions``, in whose weights users are N(mean, I).

    Args:
        directions: [R, K] float64.
        mean: w0, [K] float64.
    """

    directions: Tensor
    mean: Tensor

    def prior(self, strength: float) -> Prior:
        """The prior of these base rewards, Λ = ``strength`` · I."""
        size = len(self.mean)
        identity = torch.eye(size, dtype=torch.float64, device=self.mean.device)
        return Prior(self.mean, identity * strength, torch.ones((), dtype=torch.float64, device=self.mean.device))


def reduce(distribution: WeightDistribution, projections: Tensor, base_functions: int) -> Reduced:
    """The K directions in which users' rewards of items differ most; what all users share is kept whole.

    In coordinates where users are N(m, I) the principal directions of the items are those of the rewards' variance
    over users and items. The last base reward is what is left of m, so the average user is served as before.

    Args:
        distribution: of users' weights in R directions.
        projections: of items, [items, R]; a few thousand are enough.
        base_functions: K, at most R.
    """
    root = root_of(distribution.covariance)
    mean = torch.linalg.solve_triangular(root, distribution.mean.unsqueeze(-1), upper=False).squeeze(-1)
    white = projections.double() @ root
    white = white - white.mean(0)
    _, vectors = torch.linalg.eigh(white.T @ white)
    turn = vectors.flip(1)
    if base_functions < turn.shape[1]:
        turn, spare = turn[:, : base_functions - 1], turn[:, base_functions - 1]
        rest = mean - turn @ (turn.T @ mean)
        # If the mean is 0 or already lies in these directions, the rest is rounding.
        last = rest / rest.norm() if rest.norm() > 1e-9 * mean.norm() else spare
        turn = torch.cat([turn, last.unsqueeze(-1)], 1)
    # Eigenvectors come with either sign; this one makes the average user's weights positive.
    turn = turn * torch.where(turn.T @ mean < 0, -1.0, 1.0)
    return Reduced(root @ turn, turn.T @ mean)


def freeze(basis: Basis, reduced: Reduced, strength: float, projections: Tensor) -> tuple[BaseRewards, Prior]:
    """φ and prior as a bundle stores them: every base reward has unit variance over the items.

    Args:
        basis: embeddings -> projections.
        reduced: projections -> base rewards.
        strength: of the prior.
        projections: of items, [items, R].

    Returns:
        The module [batch, D] -> [batch, K] in float32, and the prior in float64. Rewards are as before: the scale
        went into the prior, and float32 keeps more of their digits.
    """
    spread = (projections.double() @ reduced.directions).std(0).clamp_min(1e-12)
    weight = (basis.projection @ (reduced.directions / spread)).T
    w0, precision, rho = reduced.prior(strength)
    prior = Prior(w0 * spread, precision / torch.outer(spread, spread), rho)
    return BaseRewards(weight.float(), (-(weight @ basis.centre)).float()).eval(), prior
