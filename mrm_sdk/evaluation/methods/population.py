"""Population Bradley–Terry: one reward for all users, without adapting."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.data.datasets import Dataset
from mrm_sdk.evaluation.method import FittedMethod
from mrm_sdk.evaluation.methods.preparation import PreparedUsers, prepare_users
from mrm_sdk.progress import Progress
from mrm_sdk.training.device import one_thread

# Strongest first: each solution is the start of the next search.
PENALTIES = (3000.0, 1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)


@one_thread()
def fit(
    dataset: Dataset, users: NDArray[np.int64], embeddings: Tensor, *, seed: int, progress: Progress
) -> FittedMethod:
    """Fits one reward, linear in embeddings, to all users (Bradley and Terry, Biometrika 39, 1952).

    The penalty on its squared norm is chosen by cross-validation over users. Arguments, errors: :class:`Fit`.

    Returns:
        One feature, the reward; every user's weight is 1.
    """
    prepared = prepare_users(dataset, users, embeddings, seed=seed)
    rewards = prepared.embeddings @ population_reward(prepared, progress)
    return FittedMethod(rewards.unsqueeze(1), lambda support: support.z.new_ones(len(support.z), 1))


def population_reward(prepared: PreparedUsers, progress: Progress) -> Tensor:
    """Direction in the space of embeddings that fits all users together best, [D] float64."""
    chosen, rejected, weight = _counts(prepared)
    held_out = torch.zeros(len(PENALTIES), dtype=torch.float64)
    folds, total = len(weight), weight.sum(0)
    start = torch.zeros(prepared.embeddings.shape[1], dtype=torch.float64)
    for fold in range(folds):
        solution = start
        for number, penalty in enumerate(PENALTIES):
            rest = total - weight[fold]
            solution = _minimise(prepared.embeddings, chosen, rejected, rest, penalty, solution)
            held_out[number] += _loss(prepared.embeddings @ solution, chosen, rejected, weight[fold])
        progress("cross-validating", fold + 1, folds)
    best = PENALTIES[int(held_out.argmin())]
    return _minimise(prepared.embeddings, chosen, rejected, total, best, start)


def _counts(prepared: PreparedUsers) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct ordered pairs of items, [pairs] twice, and how often each fold says so, [folds, pairs].

    One reward for all cannot tell users apart, so counts are sufficient; a tie is half of each direction.
    """
    items, strength, tie = prepared.users
    fold = prepared.fold[:, None, None].expand_as(strength).reshape(-1).repeat(2)
    pairs = torch.cat([items.reshape(-1, 2), items.reshape(-1, 2).flip(1)])
    weight = torch.cat([(strength * (1 - tie / 2)).reshape(-1), (strength * tie / 2).reshape(-1)])
    real = weight > 0
    distinct, index = torch.unique(pairs[real], dim=0, return_inverse=True)
    folds = int(prepared.fold.max()) + 1
    count = torch.bincount(fold[real] * len(distinct) + index, weight[real], minlength=folds * len(distinct))
    return distinct[:, 0], distinct[:, 1], count.view(folds, -1)


def _loss(rewards: Tensor, chosen: Tensor, rejected: Tensor, weight: Tensor) -> Tensor:
    # Not rewards[chosen]: the gradient of that adds up in an order that changes from run to run.
    first, second = (torch.nn.functional.embedding(index, rewards.unsqueeze(1)) for index in (chosen, rejected))
    return weight @ torch.nn.functional.softplus((second - first).squeeze(1))


def _minimise(
    embeddings: Tensor, chosen: Tensor, rejected: Tensor, weight: Tensor, penalty: float, start: Tensor
) -> Tensor:
    """Minimises the strictly convex penalised loss from ``start``, [D]."""
    direction = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([direction], max_iter=300, history_size=20, line_search_fn="strong_wolfe")
    scale = 1 / (weight.sum() + penalty)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = _loss(embeddings @ direction, chosen, rejected, weight) + penalty / 2 * direction.square().sum()
        (loss * scale).backward()  # type: ignore[no-untyped-call]
        return loss.detach() * scale

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return direction.detach()
