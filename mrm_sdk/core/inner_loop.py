"""Inner loops: comparisons of users -> their weights, batched over users.

Newton's method minimises ``J(w) = ρ Σ strength · loss(w · z) + ½ (w − w0)ᵀ Λ (w − w0)``, for each user.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mrm_sdk.core.batching import Pairs

SERVING_STEPS = 50
"""Most Newton steps when serving: ordinary users converge in 4 to 6, contradictory or extreme feedback needs more."""
SERVING_TOLERANCE = 1e-9
"""Largest change of a weight that counts as converged when serving."""


class Prior(NamedTuple):
    """The meta-learned start of every user.

    Args:
        w0: mean of the weights, [K] (for ``gradient``: the initial logits).
        precision: Λ, symmetric positive definite, [K, K].
        rho: how much one comparison counts, scalar.
    """

    w0: Tensor
    precision: Tensor
    rho: Tensor

    def with_threshold(self) -> Prior:
        """The same with one more weight: the user's threshold for ratings, N(0, 1), in nats of a margin.

        Its precision is ρ: where ρ makes the covariance of all weights smaller, it makes that of the threshold smaller.
        """
        precision = torch.nn.functional.pad(self.precision, (0, 1, 0, 1))
        precision[-1, -1] = self.rho
        return Prior(torch.nn.functional.pad(self.w0, (0, 1)), precision, self.rho)


def derivatives(weights: Tensor, pairs: Pairs, prior: Prior) -> tuple[Tensor, Tensor]:
    """Gradient [users, K] and Hessian [users, K, K] of J."""
    z, strength, tie = pairs
    strength, lost = prior.rho * strength, _lost(weights, z)
    slope = strength * (tie / 2 - lost)
    gradient = (slope.unsqueeze(-2) @ z).squeeze(-2) + (weights - prior.w0) @ prior.precision
    return gradient, _hessian(lost, z, strength, prior)


def curvature(weights: Tensor, pairs: Pairs, prior: Prior) -> Tensor:
    """Hessian [users, K, K] of J alone."""
    return _hessian(_lost(weights, pairs.z), pairs.z, prior.rho * pairs.strength, prior)


def newton(pairs: Pairs, prior: Prior, *, steps: int) -> Tensor:
    """A fixed number of full Newton steps on J, to be differentiated through in meta-training.

    Args:
        pairs: support comparisons, [users, pairs, ...].
        prior: where all users start.
        steps: how many steps, unrolled.

    Returns:
        Weights, [users, K].
    """
    weights = prior.w0.expand(pairs.z.shape[0], -1)
    for _ in range(steps):
        gradient, hessian = derivatives(weights, pairs, prior)
        weights = weights - torch.linalg.solve(hessian, gradient)
    return weights


@torch.no_grad()
def newton_serving(pairs: Pairs, prior: Prior, *, max_steps: int, tolerance: float) -> Tensor:
    """Newton steps on J until no weight of any user moves by more than ``tolerance``, at most ``max_steps``.

    J is strictly convex, so its minimum is unique and does not depend on the order of comparisons. A step that does
    not lower a user's J is halved for that user, unless it is within the tolerance. A user without comparisons keeps
    ``w0`` exactly.

    Args:
        pairs: comparisons, [users, pairs, ...], float64 for reproducible results.
        prior: where all users start.
        max_steps: bound on the steps.
        tolerance: largest change of a weight that counts as converged.

    Returns:
        Weights, [users, K].
    """
    z, strength, tie = pairs
    strength, half_tie = prior.rho * strength, tie / 2

    # With one user the cost is that of calling operations: what several of them need is computed once.
    def at(weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        margin = torch.bmm(z, weights.unsqueeze(-1)).squeeze(-1)
        offset = weights - prior.w0
        pull = offset @ prior.precision
        loss = torch.nn.functional.softplus(-margin).addcmul_(half_tie, margin)
        return margin, pull, (strength * loss).sum(-1) + (pull * offset).sum(-1) / 2

    weights = prior.w0.expand(z.shape[0], -1)
    margin, pull, value = at(weights)
    for _ in range(max_steps):
        lost = torch.sigmoid(-margin)
        gradient = torch.bmm((strength * (half_tie - lost)).unsqueeze(-2), z).squeeze(-2) + pull
        step: Tensor = torch.linalg.solve(_hessian(lost, z, strength, prior), gradient)
        if bool((step.abs() <= tolerance).all()):
            return weights - step
        for _ in range(20):
            candidate = weights - step
            margin, pull, new_value = at(candidate)
            worse = new_value > value * (1 + 1e-12)  # the slack allows for rounding where J is flat
            if not bool(worse.any()):
                break
            step = torch.where(worse.unsqueeze(-1), step / 2, step)
        else:  # no part of the step helps these users: they stay where they are
            candidate = torch.where(worse.unsqueeze(-1), weights, candidate)
            margin, pull, new_value = at(candidate)
        weights, value = candidate, new_value
    return weights


def _lost(weights: Tensor, z: Tensor) -> Tensor:
    """Probability that each comparison came out the other way, [users, pairs]."""
    return torch.sigmoid(-(z @ weights.unsqueeze(-1)).squeeze(-1))


def _hessian(lost: Tensor, z: Tensor, strength: Tensor, prior: Prior) -> Tensor:
    """Of J, [users, K, K]; ``strength`` has ρ in it."""
    bend = strength * (lost - lost * lost)
    hessian: Tensor = torch.baddbmm(prior.precision.unsqueeze(0), z.mT, bend.unsqueeze(-1) * z)
    return hessian


def gradient_descent(pairs: Pairs, logits: Tensor, *, steps: int, learning_rate: float) -> Tensor:
    """The published inner loop: Adam steps on the logits of softmax weights (arXiv 2601.18731, inner loop).

    A fresh Adam (β 0.9 and 0.999, ε 1e-8) moves the shared initial logits down the mean Bradley–Terry loss of each
    user. The gradient is written out, so that the outer loop differentiates through it once.

    Args:
        pairs: support comparisons, [users, pairs, ...].
        logits: shared initial logits, [K].
        steps: how many Adam steps.
        learning_rate: of Adam.

    Returns:
        Weights, [users, K], positive and summing to 1.
    """
    z, strength, tie = pairs
    share = strength / strength.sum(-1, keepdim=True).clamp_min(torch.finfo(z.dtype).tiny)
    logits = logits.expand(z.shape[0], -1)
    first, second = torch.zeros_like(logits), torch.zeros_like(logits)
    for step in range(1, steps + 1):
        weights = torch.softmax(logits, -1)
        lost = torch.sigmoid(-(z @ weights.unsqueeze(-1)).squeeze(-1))
        by_weight = ((share * (tie / 2 - lost)).unsqueeze(-2) @ z).squeeze(-2)
        gradient = weights * (by_weight - (weights * by_weight).sum(-1, keepdim=True))
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        # The root has no derivative at 0, where a user without comparisons is.
        moving = second > 0
        root = torch.where(moving, torch.where(moving, second, 1.0).sqrt(), 0.0)
        scale = root / (1 - 0.999**step) ** 0.5 + 1e-8
        logits = logits - learning_rate * (first / (1 - 0.9**step)) / scale
    return torch.softmax(logits, -1)
