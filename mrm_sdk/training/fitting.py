"""Users' comparisons and embeddings -> base rewards and prior; imports core and training's parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.core.inner_loop import Prior
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.errors import ConfigurationError, TrainingError
from mrm_sdk.progress import Progress
from mrm_sdk.training.basis import Basis, principal_basis
from mrm_sdk.training.checkpoint import Checkpoint
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.device import CPU, device_of
from mrm_sdk.training.empirical_bayes import Population, initial_population, learn_population
from mrm_sdk.training.episodes import Packed, pack
from mrm_sdk.training.maml import meta_train, one_thread
from mrm_sdk.training.model import BaseRewards
from mrm_sdk.training.prior_strength import SIZES, Trials, choose, try_out
from mrm_sdk.training.reduction import freeze, reduce

# The result is the mean of the last EM steps: each draws other users, and none of the draws should decide.
AVERAGED = 4
_SAMPLE = 4096
_SET_ASIDE = 0.15
_MOST_SET_ASIDE = 1000
MIN_USERS = 4
"""Two folds, of which either shows how two people differ."""


class Trained(NamedTuple):
    """What meta-training learned.

    Args:
        module: φ, [batch, D] -> [batch, K].
        prior: of the inner loop, float64.
        held_out: how many users took part in choosing only; with cross-validation every user did both.
        metrics: the curve that K and the prior's strength were chosen by.
    """

    module: BaseRewards
    prior: Prior
    held_out: int
    metrics: dict[str, Any]


class _Learned(NamedTuple):
    basis: Basis
    features: Tensor
    population: Population


def fit(
    dataset: Dataset,
    users: NDArray[np.int64],
    embeddings: NDArray[np.floating],
    config: TrainingConfig,
    progress: Progress,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Meta-trains on some users of a data set; nobody else's comparisons are looked at.

    Args:
        dataset: users' comparisons.
        users: indices of those to learn from.
        embeddings: of all items, [items, D]; may be memory-mapped, and is then never in memory as a whole.
        config: everything else; the same configuration gives the same result.
        progress: called with stage, done, total.
        checkpoint: where to keep what is done, and to go on from.

    Returns:
        Base rewards and prior.

    Raises:
        TrainingError: too few users, embeddings do not differ or are not finite, or training diverged.
        ConfigurationError: the settings contradict each other, or there is no GPU where one is asked for.
    """
    if len(users) < MIN_USERS:
        raise TrainingError(f"Meta-training needs at least {MIN_USERS} users, not {len(users)}. Add users.")
    rng = np.random.default_rng(config.seed)
    shuffled = rng.permutation(users)
    with one_thread():
        if config.method == "gradient":
            if config.outer == "em":
                raise ConfigurationError("The gradient inner loop needs outer='adam'.")
            packed = pack(dataset, np.sort(users), limit=config.max_pairs, rng=rng)
            model = meta_train(packed, embeddings, config, progress, checkpoint)
            module, prior = model.freeze()
            return _checked(Trained(module, prior, 0, {}))
        return _checked(_fit_newton(dataset, shuffled, embeddings, config, progress, checkpoint, rng))


def _fit_newton(
    dataset: Dataset,
    shuffled: NDArray[np.int64],
    embeddings: NDArray[np.floating],
    config: TrainingConfig,
    progress: Progress,
    checkpoint: Checkpoint | None,
    rng: np.random.Generator,
) -> Trained:
    held_out = _held_out(shuffled, config)
    learn = _learner(dataset, shuffled, embeddings, config, progress, checkpoint, rng)
    # Comparisons that are kept of a busy user depend on the user alone, not on the fold.
    everyone = pack(dataset, np.sort(shuffled), limit=config.max_pairs, rng=rng).to(device_of(config.device))
    place = np.searchsorted(np.sort(shuffled), shuffled)
    trials: list[Trials] = []
    for number, aside in enumerate(held_out):
        progress("choosing on users set aside", number, len(held_out))
        mask = torch.ones(len(shuffled), dtype=torch.bool)
        mask[torch.from_numpy(place[aside])] = False
        learned = learn(everyone.users(mask), f"fold-{number}")
        judged = everyone.users(~mask)
        sample = learned.features[_some(len(learned.features))]
        width = learned.features.shape[1]
        sizes = [width] if config.outer == "adam" else _sizes(config.base_functions, width)
        trials.append(try_out(learned.population, judged, learned.features, sample, sizes))
    choice = choose(trials)
    progress("choosing on users set aside", len(held_out), len(held_out))
    learned = learn(everyone, "final")
    sample = learned.features[_some(len(learned.features))].cpu()
    size = min(choice.base_functions, learned.features.shape[1])
    reduced = reduce(learned.population.to(CPU), sample, size)
    module, prior = freeze(learned.basis, reduced, choice.strength, sample)
    metrics = {
        "chosen": {"base_functions": size, "prior_strength": choice.strength, "held_out_gain": choice.gain},
        "held_out_query_loss": choice.curve,
    }
    return Trained(module, prior, sum(map(len, held_out)), metrics)


def _held_out(shuffled: NDArray[np.int64], config: TrainingConfig) -> list[NDArray[np.int64]]:
    """Positions of the users that are set aside, fold by fold: all of them where there are few users."""
    count = len(shuffled)
    if count >= config.large:
        return [np.arange(min(round(_SET_ASIDE * count), _MOST_SET_ASIDE))]
    return np.array_split(np.arange(count), min(config.folds, count // 2))


def _sizes(wanted: int | None, width: int) -> list[int]:
    if wanted is not None:
        return [min(wanted, width)]
    return sorted({min(size, width) for size in SIZES})


def _some(count: int) -> Tensor:
    """Evenly spread rows, some thousands at most."""
    return torch.linspace(0, count - 1, min(count, _SAMPLE)).long()


def _learner(
    dataset: Dataset,
    users: NDArray[np.int64],
    embeddings: NDArray[np.floating],
    config: TrainingConfig,
    progress: Progress,
    checkpoint: Checkpoint | None,
    rng: np.random.Generator,
) -> Callable[[Packed, str], _Learned]:
    """Returns what learns a population from users; the stage's name keeps its checkpoints apart."""
    device = device_of(config.device)
    if config.outer == "adam":

        def by_gradient(packed: Packed, stage: str) -> _Learned:
            model = meta_train(packed.to(CPU), embeddings, config, progress, checkpoint, stage)
            basis = Basis(model.centre.double(), (model.weight.detach() * model.scale).double().T)
            w0, precision, rho = (tensor.detach().double() for tensor in model.prior())
            population = Population(w0, torch.linalg.inv(precision) * rho).to(device)
            return _Learned(basis, basis.features(embeddings, device), population)

        return by_gradient
    progress("directions of the embeddings", 0, 1)
    rows = np.flatnonzero(np.isin(dataset.user, users))
    seen = np.unique(np.concatenate([dataset.chosen[rows], dataset.rejected[rows]]))
    # On the CPU whatever the device: what a checkpoint holds is in these coordinates, so they must not turn a little.
    basis = principal_basis(embeddings, seen, limit=config.directions, whitening=config.whitening, rng=rng)
    features = basis.features(embeddings, device)
    progress("directions of the embeddings", 1, 1)
    some = torch.from_numpy(seen)[_some(len(seen))]

    def by_expectation(packed: Packed, stage: str) -> _Learned:
        population, done = initial_population(features[some]), 0
        total = Population(torch.zeros_like(population.mean), torch.zeros_like(population.covariance))
        kept = None if checkpoint is None else checkpoint.read(stage)
        if kept is not None:
            done = int(kept["iterations"])
            population = Population(kept["mean"], kept["covariance"]).to(device)
            total = Population(kept["total_mean"], kept["total_covariance"]).to(device)

        def report(iteration: int, so_far: Population) -> None:
            nonlocal total
            if iteration >= config.iterations - AVERAGED:
                total = Population(total.mean + so_far.mean, total.covariance + so_far.covariance)
            if checkpoint is not None:
                sums = {"total_mean": total.mean, "total_covariance": total.covariance}
                checkpoint.write(stage, {**so_far._asdict(), **sums, "iterations": torch.tensor(iteration + 1)})
            progress("meta-training", iteration + 1, config.iterations)

        iterations = range(done, config.iterations)
        learn_population(packed, features, config, start=population, iterations=iterations, progress=report)
        count = min(AVERAGED, config.iterations)
        return _Learned(basis, features, Population(total.mean / count, total.covariance / count))

    return by_expectation


def _checked(trained: Trained) -> Trained:
    if not all(bool(torch.isfinite(t).all()) for t in (*trained.prior, *trained.module.parameters())):
        raise TrainingError("Training gave NaN or infinity; nothing was written. Check the embeddings' scale.")
    return trained
