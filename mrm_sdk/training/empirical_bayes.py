"""Empirical Bayes over users: how tastes vary, learned by expectation–maximisation.

The hierarchical view of MAML (Grant et al., arXiv 1801.08930): each user's weights are a draw from N(w0, Σ), a user's
comparisons adapt them (the inner loop), and the outer loop moves w0 and Σ to where the comparisons of all users are
most likely. An EM step needs no learning rate, and unlike a step down the query loss it weighs each user's weights by
how well the comparisons determine them, which is why it does not overfit where users are few.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.losses import bradley_terry, weighted_mean
from mrm_sdk.core.robust import robust_weights
from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.episodes import Packed

_USERS_PER_CHUNK = 128
# Each EM step starts from the prior, and the next one corrects a posterior that is slightly off.
_STEPS_PER_ITERATION = 3
_STEPS_FOR_JUDGING = 6
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


def initial_distribution(projections: Tensor) -> WeightDistribution:
    """Mean 0 and the same variance in all directions, such that rewards of items [items, R] vary by 1 nat."""
    size = projections.shape[1]
    variance = 1 / projections.double().var(0).sum()
    mean = torch.zeros(size, dtype=torch.float64, device=projections.device)
    return WeightDistribution(mean, torch.eye(size, dtype=torch.float64, device=projections.device) * variance)


def learn_distribution(
    packed: Packed,
    projections: Tensor,
    config: TrainingConfig,
    *,
    start: WeightDistribution,
    iterations: range,
    after_step: Callable[[int, WeightDistribution], None],
) -> WeightDistribution:
    """Runs EM steps over users; each draws up to ``users_per_iteration`` of them.

    Args:
        packed: users for training; both phases are evidence.
        projections: embeddings of all items in the R directions, [items, R] float32, on the device of ``packed`` and
            ``start``.
        config: robust objective, users per step, seed.
        start: the distribution before the first step.
        iterations: which steps to run; a step's number seeds its draw, so that a resumed run equals a whole one.
        after_step: called after each step with its number and the distribution so far.

    Returns:
        The distribution of users' weights.
    """
    distribution = start
    for iteration in iterations:
        generator = torch.Generator().manual_seed((config.seed * 100_003 + iteration) % 2**63)
        drawn = torch.randperm(len(packed.items), generator=generator)[: config.empirical_bayes.users_per_iteration]
        distribution = _step(packed.users(drawn), projections, distribution, config)
        after_step(iteration, distribution)
    return distribution


def _step(
    users: Packed, projections: Tensor, distribution: WeightDistribution, config: TrainingConfig
) -> WeightDistribution:
    """One EM step; users count by how hard they are to learn (RPO), or all the same if gamma is infinite."""
    size, device = len(distribution.mean), distribution.mean.device
    root = root_of(distribution.covariance)
    mean = torch.linalg.solve_triangular(root, distribution.mean.unsqueeze(-1), upper=False).squeeze(-1)
    white = root.float(), mean.float()
    chunks = [users.users(part) for part in torch.split(torch.arange(len(users.items)), _USERS_PER_CHUNK)]
    weights = torch.ones(len(users.items), device=device)
    if config.robust_gamma != float("inf"):
        losses = torch.cat([_query_loss(chunk, projections, *white) for chunk in chunks])
        weights = robust_weights(losses, ratio=config.robust_ratio, gamma=config.robust_gamma)
    offsets, explained = [], torch.zeros(size, size, dtype=torch.float64, device=device)
    for chunk, weight in zip(chunks, torch.split(weights, _USERS_PER_CHUNK), strict=True):
        evidence = _pairs(chunk, (SUPPORT, QUERY), projections, white[0])
        posterior = adapt_white(evidence, white[1], steps=_STEPS_PER_ITERATION)
        rows = (posterior.explained * weight.sqrt()[:, None, None]).reshape(-1, size)
        explained += (rows.T @ rows).double()
        offsets.append(posterior.offset)
    offset, share = torch.cat(offsets).double(), (weights / weights.sum()).double().unsqueeze(-1)
    shift = (share * offset).sum(0)
    apart = (offset - shift) * share.sqrt()
    second = torch.eye(size, dtype=torch.float64, device=device) - explained / len(users.items) + apart.T @ apart
    covariance = root @ second @ root.T
    covariance = (covariance + covariance.T) / 2
    if config.empirical_bayes.independent_directions:
        covariance = torch.diag(torch.diagonal(covariance))
    return WeightDistribution(root @ (mean + shift), covariance)


def adapt_white(pairs: Pairs, mean: Tensor, *, steps: int = _STEPS_FOR_JUDGING) -> Posterior:
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


def _query_loss(users: Packed, projections: Tensor, root: Tensor, mean: Tensor) -> Tensor:
    """Loss of each user on the query after adapting to the support, [users]: what RPO calls hard."""
    weights = mean + adapt_white(_pairs(users, (SUPPORT,), projections, root), mean).offset
    query = _pairs(users, (QUERY,), projections, root)
    return weighted_mean(bradley_terry((query.z @ weights.unsqueeze(-1)).squeeze(-1), query.tie), query.strength)


def _pairs(users: Packed, phases: tuple[int, ...], projections: Tensor, root: Tensor) -> Pairs:
    parts = [users.pairs(phase, projections) for phase in phases]
    z, strength, tie = (torch.cat(fields, 1) for fields in zip(*parts, strict=True))
    return Pairs(z @ root, strength, tie)


def root_of(covariance: Tensor) -> Tensor:
    """Cholesky factor, with a little added to the diagonal for directions without variance."""
    size = len(covariance)
    noise = 1e-9 * covariance.diagonal().mean().clamp_min(1e-12)
    identity = torch.eye(size, dtype=covariance.dtype, device=covariance.device)
    root: Tensor = torch.linalg.cholesky(covariance + noise * identity)
    return root
