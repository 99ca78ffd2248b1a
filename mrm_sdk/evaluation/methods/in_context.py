"""An in-context adapter: a set network that reads a user's comparisons and gives weights."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mrm_sdk.core.batching import Pairs
from mrm_sdk.data.contents import SUPPORT
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.evaluation.method import FittedMethod
from mrm_sdk.evaluation.methods.population import population_reward
from mrm_sdk.evaluation.methods.preparation import prepare_users, query_loss
from mrm_sdk.progress import Progress
from mrm_sdk.training.device import one_thread
from mrm_sdk.training.episodes import Packed, draw
from mrm_sdk.training.maml import query_losses

# Chosen on users set aside from the training users of the data sets measured on.
STEPS, USERS_PER_BATCH, LEARNING_RATE = 600, 128, 0.005
PROJECTIONS, HIDDEN = 8, 64
# Noise on embeddings, in units of their standard deviation: it keeps the projection smooth.
NOISE = 0.3
JUDGE_EVERY = 25


class SetNetwork(nn.Module):
    """Deep Sets (Zaheer et al., arXiv 1703.06114): features of comparisons are summed, and a network reads the sum.

    Args:
        start: weights of a user without comparisons, [F].
        generator: source of the initial values.
    """

    def __init__(self, start: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        size = len(start)
        self.start = nn.Parameter(start)
        self.token = nn.Sequential(nn.Linear(size, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU())
        self.read = nn.Sequential(nn.Linear(HIDDEN + 1, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, size))
        with torch.no_grad():
            layers = [layer for layer in (*self.token, *self.read) if isinstance(layer, nn.Linear)]
            for layer in layers:
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) / layer.in_features**0.5)
                layer.bias.zero_()
            # Starts at 0: training begins with the weights that all users share.
            layers[-1].weight.zero_()

    def forward(self, support: Pairs) -> Tensor:
        """Comparisons of users, [users, pairs, F] -> weights [users, F]."""
        z, strength, tie = support
        pooled = ((strength * (1 - tie / 2)).unsqueeze(-1) * self.token(z)).sum(1)
        if bool(tie.any()):
            pooled = pooled + ((strength * tie / 2).unsqueeze(-1) * self.token(-z)).sum(1)
        count = strength.sum(1, keepdim=True)
        # No comparisons give no change, and the network sees how many there are.
        read: Tensor = self.read(torch.cat([pooled / (1 + count), torch.log1p(count)], 1))
        return self.start + read * count / (1 + count)


@one_thread()
def fit(
    dataset: Dataset, users: NDArray[np.int64], embeddings: Tensor, *, seed: int, progress: Progress
) -> FittedMethod:
    """Learns to adapt by reading, as a language model does in its context (FSPO, arXiv 2502.19312; GPO, 2310.11523).

    Those put comparisons into a language model's context; here a small network reads them, as features that are a
    learned projection of the embeddings, beside the population's reward. It is trained on the same episodes as
    meta-training, and kept as it was when held-out users fared best. Arguments, errors: :class:`Fit`.

    Returns:
        The population's reward and the projections as features; a user without support has the population's reward.
    """
    prepared = prepare_users(dataset, users, embeddings, seed=seed)
    train, held_out = prepared.split()
    common = prepared.embeddings @ population_reward(train, progress)
    scale = common.std().clamp_min(1e-12)
    shared, scaled = (common / scale).unsqueeze(1), prepared.embeddings * embeddings.shape[1] ** 0.5
    start = torch.cat([scale.unsqueeze(0), scale.new_zeros(PROJECTIONS)]).float()
    network = _Network(start, embeddings.shape[1], torch.Generator().manual_seed(seed))
    network = _train(network, train.users, held_out, shared.float(), scaled.float(), seed, progress).double()
    return network.fitted(shared, scaled)


class _Network(nn.Module):
    """The set network, and the projection that it reads."""

    def __init__(self, start: Tensor, dimension: int, generator: torch.Generator) -> None:
        super().__init__()
        self.reader = SetNetwork(start, generator)
        self.projection = nn.Parameter(torch.randn(PROJECTIONS, dimension, generator=generator) / dimension**0.5)

    def forward(self, shared: Tensor, embeddings: Tensor) -> Tensor:
        """The shared reward [items, 1] and embeddings [items, D] -> features [items, F]."""
        return torch.cat([shared, embeddings @ self.projection.T], 1)

    @torch.no_grad()
    def fitted(self, shared: Tensor, embeddings: Tensor) -> FittedMethod:
        """The network in its current state."""
        return FittedMethod(self(shared, embeddings), torch.no_grad()(self.reader))


def _train(
    network: _Network,
    users: Packed,
    held_out: Packed,
    shared: Tensor,
    embeddings: Tensor,
    seed: int,
    progress: Progress,
) -> _Network:
    """Trains over episodes; returns the network as it was when the held-out users' loss was lowest."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    best, lowest = copy.deepcopy(network), query_loss(network.fitted(shared, embeddings), held_out)
    for step in range(1, STEPS + 1):
        batch = draw(users, USERS_PER_BATCH, generator)
        noise = NOISE * torch.randn(embeddings.shape, generator=generator)
        features = network(shared, embeddings + noise)
        losses = query_losses(batch, features, network.reader(batch.pairs(SUPPORT, features)))
        optimiser.zero_grad()
        losses.mean().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % JUDGE_EVERY == 0:
            loss = query_loss(network.fitted(shared, embeddings), held_out)
            if loss < lowest:
                best, lowest = copy.deepcopy(network), loss
        progress("training the reader", step, STEPS)
    return best
