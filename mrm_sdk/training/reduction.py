"""From the distribution of users' weights in R directions to K base rewards."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mrm_sdk.core.inner_loop import Prior
from mrm_sdk.training.device import CPU
from mrm_sdk.training.distribution import WeightDistribution, root_of
from mrm_sdk.training.model import BaseRewards, KnownTexts
from mrm_sdk.training.outer_loops import Learned, spread_rows


class Reduced(NamedTuple):
    """K base rewards ``projections @ directions``, in whose weights users are N(mean, I).

    Args:
        directions: [R, K] float64.
        mean: w0, [K] float64.
    """

    directions: Tensor
    mean: Tensor

    def prior(self, strength: float, spread: float = 1.0) -> Prior:
        """The prior of these base rewards, Λ = ``strength`` · I, with J as a whole times ``1 / spread``.

        That factor moves no minimum: adapted weights stay, and their covariance is ``spread`` times what it was.
        """
        size = len(self.mean)
        identity = torch.eye(size, dtype=torch.float64, device=self.mean.device)
        rho = torch.full((), 1 / spread, dtype=torch.float64, device=self.mean.device)
        return Prior(self.mean, identity * strength * rho, rho)


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


def freeze(
    learned: Learned,
    base_functions: int,
    strength: float,
    share: float = 1.0,
    known: tuple[Tensor, Tensor] | None = None,
    spread: float = 1.0,
) -> tuple[BaseRewards, Prior]:
    """φ and prior as a bundle stores them: every base reward has unit variance over the items.

    Args:
        learned: by an outer loop.
        base_functions: K.
        strength: of the prior.
        share: by how much people may differ over texts that are not known.
        known: which items the bundle is to know again, [texts] int64, and their embeddings [texts, D] float32.
        spread: by how much the covariance of adapted weights counts.

    Returns:
        The module [batch, D] -> [batch, K] in float32, and the prior in float64. Rewards are as before: the scale
        went into the prior, and float32 keeps more of their digits.
    """
    sample = learned.base_rewards[spread_rows(len(learned.base_rewards))].cpu()
    reduced = reduce(learned.distribution.to(CPU), sample, base_functions)
    deviation = (sample.double() @ reduced.directions).std(0).clamp_min(1e-12)
    directions = reduced.directions / deviation
    scale = torch.ones(len(directions), dtype=torch.float64)
    scale[1:] = share
    basis = learned.basis
    weight = (basis.projection * scale @ directions).T
    w0, precision, rho = reduced.prior(strength, spread)
    prior = Prior(w0 * deviation, precision / torch.outer(deviation, deviation), rho)
    module = BaseRewards(weight.float(), (-(weight @ basis.centre)).float()).eval()
    if known is not None and len(known[0]):
        items, embeddings = known
        rewards = learned.base_rewards[items.to(learned.base_rewards.device)].cpu().double() @ directions
        module.known = KnownTexts.of(embeddings, (rewards - module(embeddings)).float().detach())
    return module, prior
