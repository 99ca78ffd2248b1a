"""What all users share: how good an item is, by its text and by what was said of the item itself.

A Bradley–Terry model (Bradley and Terry, Biometrika 39, 1952) whose utilities are linear in the text's features, with a
residual for each item: u(i) = b · x(i) + e(i), b ~ N(0, 1/penalty), e ~ N(0, ψ). A text that is new has no residual.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor

from mrm_sdk.training.episodes import Packed

# Variance of a residual, in nats²: utilities of texts have about as much.
RESIDUAL_VARIANCE: Final = 0.3
_STEPS, _RESIDUAL_STEPS, _TOLERANCE, _LARGEST_STEP = 30, 200, 1e-6, 4.0


class Judgements(NamedTuple):
    """Who was preferred to whom how often, over all users.

    Args:
        chosen: item of each distinct ordered pair, [pairs] int64.
        rejected: the other item, [pairs] int64.
        weight: how often; a tie is half of each direction, [pairs] float64.
    """

    chosen: Tensor
    rejected: Tensor
    weight: Tensor


def judgements_of(users: Packed) -> Judgements:
    """Counts the comparisons of both phases; one reward for all cannot tell users apart, so counts are sufficient."""
    items, strength, tie = users.items.reshape(-1, 2), users.strength.reshape(-1), users.tie.reshape(-1)
    pairs = torch.cat([items, items.flip(1)])
    weight = torch.cat([strength * (1 - tie / 2), strength * tie / 2]).double()
    real = weight > 0
    if not bool(real.any()):
        empty = torch.zeros(0, dtype=torch.int64, device=items.device)
        return Judgements(empty, empty, weight[:0])
    distinct, index = torch.unique(pairs[real], dim=0, return_inverse=True)
    count = torch.zeros(len(distinct), dtype=torch.float64, device=items.device).index_add_(0, index, weight[real])
    return Judgements(distinct[:, 0], distinct[:, 1], count)


def fit_text_utility(features: Tensor, judged: Judgements, penalty: float, start: Tensor | None = None) -> Tensor:
    """b, [R] float64: Newton's method on the penalised likelihood, which is strictly convex.

    Args:
        features: of all items, [items, R].
        judged: by all users.
        penalty: on the squared norm of b.
        start: of the search.
    """
    used, index = torch.unique(torch.cat([judged.chosen, judged.rejected]), return_inverse=True)
    x = features[used].double()
    chosen, rejected = index.chunk(2)
    size = x.shape[1]
    identity = torch.eye(size, dtype=torch.float64, device=x.device)
    weight = torch.zeros(size, dtype=torch.float64, device=x.device) if start is None else start
    for _ in range(_STEPS):
        slope, bend = _derivatives(x @ weight, chosen, rejected, judged.weight)
        degree = _per_item(bend, chosen, rejected, len(x), sign=1)
        coupled = _coupled(bend, chosen, rejected, x)
        hessian = x.T @ (degree.unsqueeze(1) * x - coupled) + penalty * identity
        gradient = x.T @ _per_item(slope, chosen, rejected, len(x), sign=-1) - penalty * weight
        step = torch.linalg.solve(hessian, gradient)
        moved = x @ step
        largest = float((moved[chosen] - moved[rejected]).abs().max()) if len(chosen) else 0.0
        weight = weight + step * min(1.0, _LARGEST_STEP / max(largest, _LARGEST_STEP))
        if largest <= _TOLERANCE:
            break
    return weight


def fit_residuals(utility: Tensor, judged: Judgements) -> Tensor:
    """e, [items] float64: what the judgements of an item say beyond its text's utility [items] float64.

    All residuals move at once, each by its own gradient over a bound on the curvature: that of a sum over pairs is at
    most twice its diagonal (a graph's Laplacian), so no step lowers the likelihood.
    """
    residual = torch.zeros_like(utility)
    for _ in range(_RESIDUAL_STEPS):
        slope, bend = _derivatives(utility + residual, judged.chosen, judged.rejected, judged.weight)
        gradient = (
            _per_item(slope, judged.chosen, judged.rejected, len(utility), sign=-1) - residual / RESIDUAL_VARIANCE
        )
        curvature = 2 * _per_item(bend, judged.chosen, judged.rejected, len(utility), sign=1) + 1 / RESIDUAL_VARIANCE
        step = gradient / curvature
        residual = residual + step
        if float(step.abs().max()) <= 1e-4:
            break
    return residual


def mean_loss(utility: Tensor, judged: Judgements) -> float:
    """Mean Bradley–Terry loss in nats of utilities [items]; NaN without judgements."""
    margin = utility[judged.chosen] - utility[judged.rejected]
    return float((judged.weight @ torch.nn.functional.softplus(-margin.double())) / judged.weight.sum())


def _derivatives(utility: Tensor, chosen: Tensor, rejected: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Of each pair's weighted log-likelihood in its margin: the first, and minus the second."""
    lost = torch.sigmoid(utility[rejected] - utility[chosen])
    return weight * lost, weight * lost * (1 - lost)


def _per_item(values: Tensor, chosen: Tensor, rejected: Tensor, count: int, *, sign: int) -> Tensor:
    """Sums over pairs, [items]: of the chosen item, and ``sign`` times of the rejected one."""
    out = torch.zeros(count, dtype=values.dtype, device=values.device)
    return out.index_add_(0, chosen, values).index_add_(0, rejected, values, alpha=sign)


def _coupled(bend: Tensor, chosen: Tensor, rejected: Tensor, x: Tensor) -> Tensor:
    """Of each item the features [items, R] of those it was compared with, weighted by ``bend`` and summed."""
    item, other = torch.cat([chosen, rejected]), torch.cat([rejected, chosen])
    order, count = torch.argsort(item, stable=True), torch.bincount(item, minlength=len(x))
    return torch.nn.functional.embedding_bag(
        other[order], x, count.cumsum(0) - count, mode="sum", per_sample_weights=bend.repeat(2)[order]
    )
