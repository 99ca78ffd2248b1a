"""Empirical Bayes over users: base rewards as latent factors of items, learned by expectation–maximisation.

The hierarchical view of MAML (Grant et al., arXiv 1801.08930): users' weights are draws from N(0, I), a user's
comparisons adapt them (the inner loop), and the outer loop moves the items' loadings to where the comparisons of all
users are most likely. Loadings are regressed on the text (Agarwal and Chen, Regression-based Latent Factor Models, KDD
2009): B(i) = x(i) G + E(i). What the judgements of an item itself say, E, is kept apart from what its text says, so
that a new text gets the latter alone, and G need not bend to fit every known item.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from torch import Tensor

from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.losses import bradley_terry, weighted_mean
from mrm_sdk.core.posterior import moderated
from mrm_sdk.core.robust import robust_weights
from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.episodes import Packed

RESIDUAL_VARIANCE: Final = 0.1
"""Prior variance of E: loadings of items judged by many have about three times as much."""
TEXT_PENALTY: Final = 10.0
"""Prior precision of G, whose features have a mean square of 1 per item."""
LEAST_COMPARISONS: Final = 4
"""An item of fewer says next to nothing beyond its text, and would take as much memory as any other."""
_USERS_PER_CHUNK = 512
_START, _FIRST_STEPS, _STEPS, _LARGEST_STEP = 0.5, 3, 2, 4.0
_VARIANCES = (0.01, 1.0)
# Above this, a comparison leaves float32 too few digits to solve for its user's step.
_LARGEST_CURVATURE = 1e5


class Factors(NamedTuple):
    """The state of learning.

    Args:
        text: G, loadings by the text's features, [R, k] float64.
        residual: E, of every item, [items, k] float64; 0 where an item has too few comparisons.
        variance: of users' weights on the utility that all share, [] float64.
        weights: of the users so far, first that on the shared utility, [users, 1 + k] float32.
    """

    text: Tensor
    residual: Tensor
    variance: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> Factors:
        """The same on another device."""
        return Factors(*(field.to(device) for field in self))


def first_factors(features: Tensor, users: int, count: int) -> Factors:
    """Where learning starts: the ``count`` directions in which the features [items, R] differ most."""
    x = features.double()
    centred = x - x.mean(0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    text = vectors.flip(1)[:, :count] * _START
    weights = torch.zeros(users, text.shape[1] + 1, device=x.device)
    weights[:, 0] = 1
    residual = torch.zeros(len(x), text.shape[1], dtype=torch.float64, device=x.device)
    return Factors(text, residual, torch.full((), 0.09, dtype=torch.float64, device=x.device), weights)


def learn_factors(
    users: Packed,
    features: Tensor,
    utility: Tensor,
    config: TrainingConfig,
    *,
    start: Factors,
    iterations: range,
    after_step: Callable[[int, Factors], None],
) -> Factors:
    """Runs EM steps over users.

    Args:
        users: for training; both phases are evidence.
        features: of all items, [items, R] float32, on the device of ``users``.
        utility: that all users share, of all items, [items] float64.
        config: robust objective.
        start: the state before the first step.
        iterations: which steps to run.
        after_step: called after each step with its number and the state so far.
    """
    used, inverse = torch.unique(users.items, return_inverse=True)
    local = users._replace(items=inverse)
    x, shared, factors = features[used].double(), utility[used], start
    for iteration in iterations:
        step = _step(local, x, shared, factors._replace(residual=factors.residual[used]), config, first=iteration == 0)
        residual = torch.zeros_like(factors.residual)
        residual[used] = step.residual
        factors = step._replace(residual=residual)
        after_step(iteration, factors)
    return factors


class _Statistics:
    """Sums over users and their comparisons that the M-step needs."""

    def __init__(self, items: int, size: int, device: torch.device) -> None:
        self.gradient = torch.zeros(items, size, device=device)
        self.curvature = torch.zeros(items, size * size, device=device)
        self.bend = torch.zeros(items, device=device)
        self.comparisons = torch.zeros(items, device=device)
        self.second = torch.zeros(size, size, device=device)
        self.variance, self.users = torch.zeros((), device=device), torch.zeros((), device=device)

    def add(self, items: Tensor, pairs: Pairs, weights: Tensor, covariance: Tensor, share: Tensor) -> None:
        """Adds users: items [users, pairs, 2], posterior mean [users, 1 + k] and covariance, what each counts."""
        z, strength, tie = pairs
        spread = z @ covariance
        margin = (z @ weights.unsqueeze(-1)).squeeze(-1)
        # Expected over the posterior, to second order.
        margin = moderated(margin, (spread * z).sum(-1))
        lost = torch.sigmoid(-margin)
        strength = strength * share.unsqueeze(-1)
        slope, bend = strength * (lost - tie / 2), strength * lost * (1 - lost)
        own = weights[:, 1:]
        second = covariance[:, 1:, 1:] + own.unsqueeze(-1) * own.unsqueeze(-2)
        gradient = slope.unsqueeze(-1) * own.unsqueeze(-2) - bend.unsqueeze(-1) * spread[..., 1:]
        curvature = bend.unsqueeze(-1) * second.flatten(1).unsqueeze(1)
        for side, sign in ((0, 1), (1, -1)):
            index = items[..., side].flatten()
            self.gradient.index_add_(0, index, gradient.flatten(0, 1), alpha=sign)
            self.curvature.index_add_(0, index, curvature.flatten(0, 1))
            self.bend.index_add_(0, index, bend.flatten())
            self.comparisons.index_add_(0, index, (strength > 0).to(bend).flatten())
        self.second += (share[:, None, None] * second).sum(0)
        self.variance += (share * ((weights[:, 0] - 1) ** 2 + covariance[:, 0, 0])).sum()
        self.users += share.sum()


def _step(
    users: Packed, x: Tensor, utility: Tensor, factors: Factors, config: TrainingConfig, *, first: bool
) -> Factors:
    size, device = factors.text.shape[1], x.device
    rewards = torch.cat([utility.unsqueeze(1), x @ factors.text + factors.residual], 1).float()
    precision = torch.ones(size + 1, device=device)
    precision[0] = 1 / float(factors.variance)
    sums, weights = _Statistics(len(x), size, device), factors.weights.clone()
    share = _shares(users, rewards, precision, config)
    for part in torch.split(torch.arange(len(users.items), device=device), _USERS_PER_CHUNK):
        chunk = users.users(part)
        pairs = _pairs(chunk, (SUPPORT, QUERY), rewards)
        mean, covariance = _adapt(pairs, precision, weights[part], steps=_FIRST_STEPS if first else _STEPS)
        weights[part] = mean
        sums.add(chunk.items.flatten(1, 2), pairs, mean, covariance, share[part])
    return _maximise(x, factors, sums, weights)


def _maximise(x: Tensor, factors: Factors, sums: _Statistics, weights: Tensor) -> Factors:
    """Moves text and residuals up the expected likelihood, and scales them so that users are N(0, I) again.

    A pair couples two items; twice an item's own curvature bounds the coupling, as for the shared utility.
    """
    size, gradient = factors.text.shape[1], sums.gradient.double()
    identity = torch.eye(size, dtype=torch.float64, device=x.device)
    # Users' weights have second moments near I, so one matrix serves all factors.
    hessian = x.T @ (x * (2 * sums.bend.double()).unsqueeze(1))
    hessian += TEXT_PENALTY * torch.eye(len(hessian), dtype=torch.float64, device=x.device)
    text = factors.text + torch.linalg.solve(hessian, x.T @ gradient - TEXT_PENALTY * factors.text)
    curvature = 2 * sums.curvature.double().view(len(x), size, size) + identity / RESIDUAL_VARIANCE
    slope = gradient - factors.residual / RESIDUAL_VARIANCE
    moved = torch.linalg.solve(curvature, slope.unsqueeze(-1)).squeeze(-1)
    residual = factors.residual + torch.where((sums.comparisons >= LEAST_COMPARISONS).unsqueeze(1), moved, 0.0)
    root = torch.linalg.cholesky(sums.second.double() / sums.users.double() + 1e-6 * identity)
    own = torch.linalg.solve_triangular(root.float(), weights[:, 1:].T, upper=False).T
    variance = (sums.variance / sums.users).double().clamp(*_VARIANCES)
    return Factors(text @ root, residual @ root, variance, torch.cat([weights[:, :1], own], 1))


def _adapt(pairs: Pairs, precision: Tensor, weights: Tensor, *, steps: int) -> tuple[Tensor, Tensor]:
    """Newton steps of users from ``weights`` [users, 1 + k] under N((1, 0, …), 1/precision), and their covariance."""
    if pairs.z.dtype == torch.float32 and float((pairs.strength * pairs.z.square().sum(-1)).max()) > _LARGEST_CURVATURE:
        exact = Pairs(*(field.double() for field in pairs))
        adapted, covariance = _adapt(exact, precision.double(), weights.double(), steps=steps)
        return adapted.float(), covariance.float()
    z, strength, tie = pairs
    mean = torch.zeros_like(precision)
    mean[0] = 1
    hessian = torch.diag(precision).expand(len(z), -1, -1)
    for _ in range(steps):
        lost = torch.sigmoid(-(z @ weights.unsqueeze(-1)).squeeze(-1))
        slope = ((strength * (tie / 2 - lost)).unsqueeze(-2) @ z).squeeze(-2) + (weights - mean) * precision
        bend = strength * lost * (1 - lost)
        hessian = torch.diag(precision) + z.mT @ (bend.unsqueeze(-1) * z)
        step = torch.linalg.solve(hessian, slope)
        largest = (z @ step.unsqueeze(-1)).squeeze(-1).abs().amax(1).clamp_min(_LARGEST_STEP)
        weights = weights - step * (_LARGEST_STEP / largest).unsqueeze(-1)
    return weights, torch.linalg.inv(hessian)


def _shares(users: Packed, rewards: Tensor, precision: Tensor, config: TrainingConfig) -> Tensor:
    """What each user counts, [users]: by how hard they are to learn (RPO), or all the same if gamma is infinite."""
    count = len(users.items)
    if config.robust_gamma == float("inf"):
        return torch.ones(count, device=rewards.device)
    start = torch.zeros_like(precision)
    start[0] = 1
    losses = []
    for part in torch.split(torch.arange(count, device=rewards.device), _USERS_PER_CHUNK):
        chunk = users.users(part)
        support = _pairs(chunk, (SUPPORT,), rewards)
        adapted, _ = _adapt(support, precision, start.expand(len(part), -1), steps=_FIRST_STEPS)
        query = _pairs(chunk, (QUERY,), rewards)
        margin = (query.z @ adapted.unsqueeze(-1)).squeeze(-1)
        losses.append(weighted_mean(bradley_terry(margin, query.tie), query.strength))
    return robust_weights(torch.cat(losses), ratio=config.robust_ratio, gamma=config.robust_gamma)


def _pairs(users: Packed, phases: tuple[int, ...], rewards: Tensor) -> Pairs:
    parts = [users.pairs(phase, rewards) for phase in phases]
    return Pairs(*(torch.cat(fields, 1) for fields in zip(*parts, strict=True)))
