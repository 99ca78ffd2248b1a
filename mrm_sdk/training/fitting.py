"""Fits base rewards and a prior to users: outer loop, choice of K and of the prior's strength, final fit."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.core.inner_loop import Prior
from mrm_sdk.core.torch_defaults import own_torch_defaults
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.errors import TrainingError
from mrm_sdk.progress import Progress
from mrm_sdk.training.basis import Basis, principal_basis
from mrm_sdk.training.checkpoint import Checkpoint
from mrm_sdk.training.config import MamlConfig, TrainingConfig
from mrm_sdk.training.device import CPU, device_of, one_thread
from mrm_sdk.training.empirical_bayes import WeightDistribution, initial_distribution, learn_distribution
from mrm_sdk.training.episodes import Packed, pack
from mrm_sdk.training.maml import meta_train
from mrm_sdk.training.model import BaseRewards
from mrm_sdk.training.prior_strength import SHOTS, SIZES, Trials, choose, run_trials
from mrm_sdk.training.reduction import freeze, reduce

_SAMPLE = 4096
_HELD_OUT_SHARE = 0.15
_MOST_HELD_OUT = 1000
MIN_USERS = 4
"""Two folds, each with two users who can differ."""


class Trained(NamedTuple):
    """What meta-training learned.

    Args:
        module: φ, [batch, D] -> [batch, K].
        prior: of the inner loop, float64.
        held_out: how many users only took part in choosing; with cross-validation every user did both.
        metrics: the curve by which K and the prior's strength were chosen.
    """

    module: BaseRewards
    prior: Prior
    held_out: int
    metrics: dict[str, Any]


@own_torch_defaults()
def fit(
    dataset: Dataset,
    users: NDArray[np.int64],
    embeddings: NDArray[np.floating],
    config: TrainingConfig,
    progress: Progress,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Meta-trains on some users of a data set; comparisons of other users are not read.

    Args:
        dataset: users' comparisons.
        users: indices of those to learn from.
        embeddings: of all items, [items, D]; may be memory-mapped, and is then never in memory as a whole.
        config: everything else; the same configuration gives the same result.
        progress: called with stage, done, total.
        checkpoint: where to keep the state, and to resume from.

    Returns:
        Base rewards and prior.

    Raises:
        TrainingError: too few users, embeddings do not differ or are not finite, or training diverged.
        ConfigurationError: MAML without a number of base functions, or ``cuda`` without a GPU.
    """
    if len(users) < MIN_USERS:
        raise TrainingError(f"Meta-training needs at least {MIN_USERS} users, not {len(users)}. Add users.")
    rng = np.random.default_rng(config.seed)
    shuffled = rng.permutation(users)
    with one_thread():
        if config.method == "gradient":
            packed = pack(dataset, np.sort(users), limit=config.max_pairs, rng=rng)
            model = meta_train(packed, embeddings, config, progress, checkpoint)
            module, prior = model.freeze()
            return _require_finite(Trained(module, prior, 0, {}))
        outer: _OuterLoop
        if isinstance(config.outer, MamlConfig):
            outer = _Maml(embeddings, config, progress, checkpoint)
        else:
            outer = _EmpiricalBayes(dataset, shuffled, embeddings, config, progress, checkpoint, rng)
        # The comparisons that are kept of a user with many depend on the user alone, not on the fold.
        packed = pack(dataset, np.sort(shuffled), limit=config.max_pairs, rng=rng).to(device_of(config.device))
        return _require_finite(_fit_newton(outer, packed, shuffled, config, progress))


class _Learned(NamedTuple):
    """Directions of the embeddings, all items in them [items, R], and how users' weights over them differ."""

    basis: Basis
    projections: Tensor
    distribution: WeightDistribution


class _OuterLoop(Protocol):
    def learn(self, packed: Packed, stage: str) -> _Learned:
        """Learns from users; ``stage`` names the state in the checkpoint."""
        ...


class _Maml:
    def __init__(
        self,
        embeddings: NDArray[np.floating],
        config: TrainingConfig,
        progress: Progress,
        checkpoint: Checkpoint | None,
    ) -> None:
        self._embeddings, self._config = embeddings, config
        self._progress, self._checkpoint = progress, checkpoint

    def learn(self, packed: Packed, stage: str) -> _Learned:
        device = device_of(self._config.device)
        model = meta_train(packed.to(CPU), self._embeddings, self._config, self._progress, self._checkpoint, stage)
        basis = Basis(model.centre.double(), (model.weight.detach() * model.scale).double().T)
        w0, precision, rho = (tensor.detach().double() for tensor in model.prior())
        distribution = WeightDistribution(w0, torch.linalg.inv(precision) * rho).to(device)
        return _Learned(basis, basis.project(self._embeddings, device), distribution)


class _EmpiricalBayes:
    def __init__(
        self,
        dataset: Dataset,
        users: NDArray[np.int64],
        embeddings: NDArray[np.floating],
        config: TrainingConfig,
        progress: Progress,
        checkpoint: Checkpoint | None,
        rng: np.random.Generator,
    ) -> None:
        self._config, self._progress, self._checkpoint = config, progress, checkpoint
        self._device, loop = device_of(config.device), config.empirical_bayes
        progress("directions of the embeddings", 0, 1)
        rows = np.flatnonzero(np.isin(dataset.user, users))
        items = np.unique(np.concatenate([dataset.chosen[rows], dataset.rejected[rows]]))
        # On the CPU for every device: a checkpoint is in these coordinates, so they must not differ at all.
        self._basis = principal_basis(embeddings, items, limit=loop.directions, whitening=loop.whitening, rng=rng)
        self._projections = self._basis.project(embeddings, self._device)
        progress("directions of the embeddings", 1, 1)
        self._sample = torch.from_numpy(items)[_spread_rows(len(items))]

    def learn(self, packed: Packed, stage: str) -> _Learned:
        loop, checkpoint = self._config.empirical_bayes, self._checkpoint
        distribution, done = initial_distribution(self._projections[self._sample]), 0
        total = WeightDistribution(torch.zeros_like(distribution.mean), torch.zeros_like(distribution.covariance))
        state = None if checkpoint is None else checkpoint.read(stage)
        if state is not None:
            done = int(state["iterations"])
            distribution = WeightDistribution(state["mean"], state["covariance"]).to(self._device)
            total = WeightDistribution(state["total_mean"], state["total_covariance"]).to(self._device)

        def after_step(iteration: int, current: WeightDistribution) -> None:
            nonlocal total
            if iteration >= loop.iterations - loop.averaged_iterations:
                total = WeightDistribution(total.mean + current.mean, total.covariance + current.covariance)
            if checkpoint is not None:
                sums = {"total_mean": total.mean, "total_covariance": total.covariance}
                checkpoint.write(stage, {**current._asdict(), **sums, "iterations": torch.tensor(iteration + 1)})
            self._progress("meta-training", iteration + 1, loop.iterations)

        iterations = range(done, loop.iterations)
        learn_distribution(
            packed, self._projections, self._config, start=distribution, iterations=iterations, after_step=after_step
        )
        count = min(loop.averaged_iterations, loop.iterations)
        average = WeightDistribution(total.mean / count, total.covariance / count)
        return _Learned(self._basis, self._projections, average)


def _fit_newton(
    outer: _OuterLoop, packed: Packed, shuffled: NDArray[np.int64], config: TrainingConfig, progress: Progress
) -> Trained:
    """Lets held-out users choose K and the prior's strength, then fits to all users.

    Args:
        outer: the outer loop.
        packed: all users, in order of their indices.
        shuffled: the indices in the order by which they are held out.
        config: sizes and folds.
        progress: called with stage, done, total.
    """
    folds = _folds(len(shuffled), config)
    row_of = np.searchsorted(np.sort(shuffled), shuffled)
    trials: list[Trials] = []
    for number, held_out in enumerate(folds):
        progress("choosing on users set aside", number, len(folds))
        is_learner = torch.ones(len(shuffled), dtype=torch.bool)
        is_learner[torch.from_numpy(row_of[held_out])] = False
        learned = outer.learn(packed.users(is_learner), f"fold-{number}")
        sample = learned.projections[_spread_rows(len(learned.projections))]
        width = learned.projections.shape[1]
        sizes = [width] if isinstance(config.outer, MamlConfig) else _sizes(config.base_functions, width)
        trials.append(run_trials(learned.distribution, packed.users(~is_learner), learned.projections, sample, sizes))
    choice = choose(trials)
    progress("choosing on users set aside", len(folds), len(folds))
    learned = outer.learn(packed, "final")
    sample = learned.projections[_spread_rows(len(learned.projections))].cpu()
    size = min(choice.base_functions, learned.projections.shape[1])
    reduced = reduce(learned.distribution.to(CPU), sample, size)
    module, prior = freeze(learned.basis, reduced, choice.strength, sample)
    metrics = {
        "chosen": {"base_functions": size, "prior_strength": choice.strength, "held_out_gain": choice.gain},
        "held_out_accuracy": None
        if math.isnan(choice.after)
        else {"before": choice.before, "after": choice.after, "shots": list(SHOTS)},
        "held_out_query_loss": choice.curve,
    }
    return Trained(module, prior, sum(map(len, folds)), metrics)


def _folds(count: int, config: TrainingConfig) -> list[NDArray[np.int64]]:
    """Positions of the users that are held out, fold by fold; all users take part if there are few."""
    if count >= config.large:
        return [np.arange(min(round(_HELD_OUT_SHARE * count), _MOST_HELD_OUT))]
    return np.array_split(np.arange(count), min(config.folds, count // 2))


def _sizes(base_functions: int | None, width: int) -> list[int]:
    if base_functions is not None:
        return [min(base_functions, width)]
    return sorted({min(size, width) for size in SIZES})


def _spread_rows(count: int) -> Tensor:
    """Evenly spread row numbers, a few thousand at most."""
    return torch.linspace(0, count - 1, min(count, _SAMPLE)).long()


def _require_finite(trained: Trained) -> Trained:
    if not all(bool(torch.isfinite(t).all()) for t in (*trained.prior, *trained.module.parameters())):
        raise TrainingError("Training gave NaN or infinity; nothing was written. Check the embeddings' scale.")
    return trained
