"""LoRe: a low-rank basis of rewards, mixed by simplex weights for each user."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.core.inner_loop import gradient_descent
from mrm_sdk.core.losses import bradley_terry, weighted_mean
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.evaluation.method import FittedMethod
from mrm_sdk.evaluation.methods.population import population_reward
from mrm_sdk.evaluation.methods.preparation import PreparedUsers, prepare_users, query_loss
from mrm_sdk.progress import Progress
from mrm_sdk.training.device import one_thread

RANK = 8
STEPS, LEARNING_RATE = 200, 0.05
# How strongly the basis is pulled to the reward that all users share.
ALPHAS = (1e-3, 3e-3, 1e-2)
# Of the basis' initial values around that reward; equal ones would stay equal.
SPREAD = 0.3
# Adam steps of a new user's weights: the released code's 500 overfit a few comparisons; fewer can be better.
ADAPTATION_STEPS = (2, 5, 20, 500)
ADAPTATION_RATE = 0.1


class RewardBasis(NamedTuple):
    """The basis and the users' weights, learned jointly.

    Args:
        directions: V, rewards in the space of embeddings, [K, D] float64.
        weights: of the training users, each on the simplex, [users, K] float64.
    """

    directions: Tensor
    weights: Tensor

    def fitted(self, embeddings: Tensor, steps: int) -> FittedMethod:
        """The basis with so many steps of adaptation, from the mean weights of the training users."""
        logits = self.weights.mean(0).log()
        adapt = partial(gradient_descent, logits=logits, steps=steps, learning_rate=ADAPTATION_RATE)
        return FittedMethod(embeddings @ self.directions.T, adapt)


@one_thread()
def fit(
    dataset: Dataset, users: NDArray[np.int64], embeddings: Tensor, *, seed: int, progress: Progress
) -> FittedMethod:
    """Learns the basis and the users' weights together by maximum likelihood (LoRe, arXiv 2504.14439, section 3).

    A new user's weights are fitted to the support with the basis fixed, by Adam on the logits of a softmax, as in the
    released code; without support they are the training users' mean. That code pulls the basis to the head of a
    trained reward model; this one pulls it to the population's reward. How strongly, and the steps of adaptation, are
    chosen on held-out users; the basis is then learned from all. Arguments, errors: :class:`Fit`.

    Returns:
        The rewards of the basis as features; weights are positive and sum to 1.
    """
    prepared = prepare_users(dataset, users, embeddings, seed=seed)
    train, held_out = prepared.split()
    common = population_reward(train, progress)
    losses: dict[tuple[float, int], float] = {}
    for number, alpha in enumerate(ALPHAS):
        basis = learn(train, common, alpha=alpha, seed=seed)
        for steps in ADAPTATION_STEPS:
            losses[alpha, steps] = query_loss(basis.fitted(prepared.embeddings, steps), held_out)
        progress("learning a basis", number + 1, len(ALPHAS) + 1)
    alpha, steps = min(losses, key=lambda choice: losses[choice])
    basis = learn(prepared, population_reward(prepared, progress), alpha=alpha, seed=seed)
    progress("learning a basis", len(ALPHAS) + 1, len(ALPHAS) + 1)
    return basis.fitted(prepared.embeddings, steps)


def learn(prepared: PreparedUsers, common: Tensor, *, alpha: float, seed: int) -> RewardBasis:
    """Minimises the users' mean Bradley–Terry losses over basis and weights, all users at once.

    Args:
        prepared: users and embeddings.
        common: the reward to which the basis is pulled, [D].
        alpha: how strongly: times the mean squared distance of the basis from it.
        seed: of the initial values.
    """
    generator = torch.Generator().manual_seed(seed)
    embeddings, common = prepared.embeddings.float(), common.float()
    items, strength, tie = (field.flatten(1, 2) for field in prepared.users)
    strength, tie = strength.float(), tie.float()
    directions = (common + torch.randn(RANK, len(common), generator=generator) * SPREAD).requires_grad_()
    logits = (0.1 * torch.randn(len(items), RANK, generator=generator)).requires_grad_()
    optimiser = torch.optim.Adam([directions, logits], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        chosen, rejected = torch.nn.functional.embedding(items, embeddings @ directions.T).unbind(-2)
        margin = ((chosen - rejected) @ torch.softmax(logits, 1).unsqueeze(-1)).squeeze(-1)
        loss = weighted_mean(bradley_terry(margin, tie), strength).mean()
        optimiser.zero_grad()
        (loss + alpha * (directions - common).square().sum(1).mean()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return RewardBasis(directions.detach().double(), torch.softmax(logits.detach().double(), 1))
