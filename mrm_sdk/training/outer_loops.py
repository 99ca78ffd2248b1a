"""The outer loops behind one interface: users in; base rewards of items and how users' weights differ out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.data.datasets import Dataset
from mrm_sdk.progress import Progress
from mrm_sdk.training.basis import Basis, principal_basis
from mrm_sdk.training.checkpoint import Checkpoint
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.device import CPU, device_of
from mrm_sdk.training.distribution import WeightDistribution
from mrm_sdk.training.empirical_bayes import Factors, first_factors, learn_factors
from mrm_sdk.training.episodes import Packed
from mrm_sdk.training.maml import meta_train
from mrm_sdk.training.utilities import fit_residuals, fit_text_utility, judgements_of, mean_loss

_SAMPLE = 4096
_PENALTIES = (1000.0, 300.0, 100.0, 30.0, 10.0)
# Over texts that the fit knows a reward may follow the judgements of single ones further.
_POPULATION_PENALTIES = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)
_USUAL_PENALTY = 100.0
MOST_BASE_FUNCTIONS = 32
"""K at most, where held-out users choose it."""


class Learned(NamedTuple):
    """What an outer loop learned.

    Args:
        basis: embeddings -> base rewards of a text, Q of them.
        residual: what is added for items of the data set, [items, Q]; ``None`` if nothing is.
        base_rewards: of all items, with their residual, [items, Q] float32.
        distribution: of users' weights over the Q base rewards.
    """

    basis: Basis
    residual: Tensor | None
    base_rewards: Tensor
    distribution: WeightDistribution

    def with_new_texts(self, share: float, new: Tensor) -> Learned:
        """The same, where people differ by ``share`` as much over items without a residual, [items] bool."""
        scale = self.base_rewards.new_ones(self.base_rewards.shape[1])
        scale[1:] = share
        return self._replace(base_rewards=torch.where(new.unsqueeze(1), self.base_rewards * scale, self.base_rewards))


class OuterLoop(Protocol):
    """Learns from users."""

    def learn(self, users: Packed, stage: str) -> Learned:
        """Learns from users; ``stage`` names the state in the checkpoint."""
        ...


class Maml:
    """Adam through the inner loop (arXiv 2601.18731, algorithm 1)."""

    def __init__(
        self,
        embeddings: NDArray[np.floating],
        config: TrainingConfig,
        progress: Progress,
        checkpoint: Checkpoint | None,
    ) -> None:
        self._embeddings, self._config = embeddings, config
        self._progress, self._checkpoint = progress, checkpoint

    def learn(self, users: Packed, stage: str) -> Learned:
        """See :class:`OuterLoop`."""
        device = device_of(self._config.device)
        model = meta_train(users.to(CPU), self._embeddings, self._config, self._progress, self._checkpoint, stage)
        basis = Basis(model.centre.double(), (model.weight.detach() * model.scale).double().T)
        w0, precision, rho = (tensor.detach().double() for tensor in model.prior())
        distribution = WeightDistribution(w0, torch.linalg.inv(precision) * rho).to(device)
        return Learned(basis, None, basis.project(self._embeddings, device), distribution)


class EmpiricalBayes:
    """Utilities that all users share, and latent factors in which they differ.

    Args:
        dataset: users' comparisons.
        users: indices of those to learn from.
        embeddings: of all items, [items, D].
        config: of the loop.
        progress: called with stage, done, total.
        checkpoint: keeps the state of each stage.
    """

    def __init__(
        self,
        dataset: Dataset,
        users: NDArray[np.int64],
        embeddings: NDArray[np.floating],
        config: TrainingConfig,
        progress: Progress,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self._config, self._progress, self._checkpoint = config, progress, checkpoint
        self._device, self._penalty = device_of(config.device), _USUAL_PENALTY
        progress("directions of the embeddings", 0, 1)
        rng = np.random.default_rng(config.seed)
        rows = np.flatnonzero(np.isin(dataset.user, users))
        items = np.unique(np.concatenate([dataset.chosen[rows], dataset.rejected[rows]]))
        # On the CPU for every device: a checkpoint is in these coordinates, so they must not differ at all.
        basis = principal_basis(embeddings, items, limit=config.empirical_bayes.directions, rng=rng)
        sample = basis.project(embeddings[items[spread_rows(len(items)).numpy()]])
        # Penalties and variances count on features whose squares sum to 1 in an item.
        unit = 1 / sample.double().square().sum(1).mean().sqrt()
        self._basis = Basis(basis.centre, basis.projection * unit)
        self._features = self._basis.project(embeddings, self._device)
        progress("directions of the embeddings", 1, 1)

    def choose_penalty(self, folds: Sequence[tuple[Packed, Packed]]) -> float:
        """Chooses how strongly the text's utility is held back.

        Args:
            folds: users to learn from, and other users' judgements of other texts.

        Returns:
            The loss at the choice in nats, on average over folds; NaN if none has such judgements.
        """
        self._penalty, loss = self._best_penalty(folds, _PENALTIES)
        return loss

    def population(self, folds: Sequence[tuple[Packed, Packed]], users: Packed) -> Tensor:
        """The best reward for all users alike over texts that the fit knows, as a function of the text: [D] float64.

        Args:
            folds: users to learn from, and other users.
            users: all of them.
        """
        penalty, _ = self._best_penalty(folds, _POPULATION_PENALTIES)
        return self._basis.projection @ fit_text_utility(self._features, judgements_of(users), penalty).cpu()

    def _best_penalty(self, folds: Sequence[tuple[Packed, Packed]], penalties: Sequence[float]) -> tuple[float, float]:
        """The penalty on the text's utility, strongest first, of least loss; and that loss, NaN if none is judged."""
        losses, judgeable = torch.zeros(len(penalties), dtype=torch.float64), 0
        for learners, judged in folds:
            seen, asked, weight = judgements_of(learners), judgements_of(judged), None
            if not len(asked.weight):
                continue
            judgeable += 1
            for number, penalty in enumerate(penalties):
                weight = fit_text_utility(self._features, seen, penalty, weight)
                losses[number] += mean_loss(self._features.double() @ weight, asked)
        if not judgeable:
            return _USUAL_PENALTY, float("nan")
        return penalties[int(losses.argmin())], float(losses.min()) / judgeable

    def learn(self, users: Packed, stage: str) -> Learned:
        """See :class:`OuterLoop`."""
        loop = self._config.empirical_bayes
        if len(users.items) > loop.most_users:
            generator = torch.Generator().manual_seed(self._config.seed)
            users = users.users(torch.randperm(len(users.items), generator=generator)[: loop.most_users].sort().values)
        judged = judgements_of(users)
        text = fit_text_utility(self._features, judged, self._penalty)
        by_text = self._features.double() @ text
        own = fit_residuals(by_text, judged) if loop.known_texts else torch.zeros_like(by_text)
        # As in serving: people's weights must spread here as they will there.
        factors = self._factors(users.independent(), by_text + own, stage)
        residual = torch.cat([own.unsqueeze(1), factors.residual], 1)
        linear = torch.cat([text.unsqueeze(1), factors.text], 1)
        base_rewards = (self._features.double() @ linear + residual).float()
        mean = torch.zeros(linear.shape[1], dtype=torch.float64, device=self._device)
        mean[0] = 1
        covariance = torch.eye(len(mean), dtype=torch.float64, device=self._device)
        covariance[0, 0] = factors.variance
        basis = Basis(self._basis.centre, self._basis.projection @ linear.cpu())
        return Learned(
            basis, residual if loop.known_texts else None, base_rewards, WeightDistribution(mean, covariance)
        )

    def _factors(self, users: Packed, utility: Tensor, stage: str) -> Factors:
        loop, checkpoint = self._config.empirical_bayes, self._checkpoint
        count = min((self._config.base_functions or MOST_BASE_FUNCTIONS) - 1, self._features.shape[1])
        if count < 1:  # a single base reward is the utility that all share
            return Factors(
                self._features.new_zeros(self._features.shape[1], 0).double(),
                self._features.new_zeros(len(utility), 0).double(),
                torch.ones((), dtype=torch.float64, device=self._device),
                self._features.new_ones(len(users.items), 1),
            )
        state = None if checkpoint is None else checkpoint.read(stage)
        done = 0 if state is None else int(state["iterations"])
        if state is None:
            factors = first_factors(self._features, len(users.items), count)
        else:
            factors = Factors(*(state[name] for name in Factors._fields)).to(self._device)

        def after_step(iteration: int, current: Factors) -> None:
            if checkpoint is not None:
                checkpoint.write(stage, {**current._asdict(), "iterations": torch.tensor(iteration + 1)})
            self._progress("meta-training", iteration + 1, loop.iterations)

        return learn_factors(
            users,
            self._features,
            utility,
            self._config,
            start=factors,
            iterations=range(done, loop.iterations),
            after_step=after_step,
        )


def spread_rows(count: int) -> Tensor:
    """Evenly spread row numbers, a few thousand at most."""
    return torch.linspace(0, count - 1, min(count, _SAMPLE)).long()
