"""The experiment behind the rules for ratings and rankings: each is tried on people set aside from training.

Needs the extras ``[cpu,train,minilm]`` and the ``train`` folder of the Jester data with its ``ratings.csv.gz``
(docs/how.md). Adapts held-out people to their ratings of the jokes of their support comparisons and judges them on
their query comparisons, which hold other jokes; prints one row per rule, the mean accuracy over seeds::

    python export/experiments/choose_ratings.py path/to/jester/train [--seeds 3] [--iterations 12]
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mrm_sdk.core.batching import Pairs, pad
from mrm_sdk.core.inner_loop import SERVING_STEPS, SERVING_TOLERANCE, Prior, newton_serving
from mrm_sdk.core.ratings import rated_pairs
from mrm_sdk.data import QUERY, SUPPORT, Dataset, read_dataset
from mrm_sdk.data.vectors import embed_dataset
from mrm_sdk.evaluation.metrics import accuracy, margins
from mrm_sdk.progress import no_progress
from mrm_sdk.settings import Settings
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.encoding import prepare_encoder
from mrm_sdk.training.episodes import pack
from mrm_sdk.training.fitting import fit

ALL = 10_000


def serve(pairs: Pairs, prior: Prior) -> Tensor:
    """Weights as a client adapts them."""
    return newton_serving(pairs, prior, max_steps=SERVING_STEPS, tolerance=SERVING_TOLERANCE)


class Judged(NamedTuple):
    """People set aside: their rated jokes in random order, what they are judged on, and a trained model."""

    items: list[Tensor]
    values: list[Tensor]
    support: Pairs
    query: Pairs
    base_rewards: Tensor
    prior: Prior

    def accuracy(self, weights: Tensor) -> float:
        """Mean over people, with their weights [users, K]."""
        return float(accuracy(self.query, margins(self.query, weights)).mean())

    def adapted(self, users: list[Pairs]) -> float:
        """Mean over people, once each has adapted to their own pairs."""
        return self.accuracy(serve(pad(users), self.prior))


def train(data: Dataset, embeddings: Tensor, config: TrainingConfig, most: int | None) -> Judged:
    """Trains on 80 % of the people; the others, ``most`` of them at most, are judged."""
    rng = np.random.default_rng(config.seed)
    people = rng.permutation(np.unique(data.user[data.phase == QUERY]))
    aside, others = (np.sort(part) for part in np.split(people, [len(people) * 20 // 100]))
    aside = aside[:most]
    trained = fit(data, others, embeddings.numpy(), config, no_progress)
    prior, base_rewards = trained.prior, trained.module(embeddings).detach().double()

    met = np.zeros((2, len(data.user_ids), len(data.items)), bool)
    for side in (data.chosen, data.rejected):
        met[data.phase, data.user, side] = True
    ratings = np.full(met.shape[1:], np.nan)
    assert data.ratings is not None
    ratings[data.ratings.user, data.ratings.item] = data.ratings.value
    free = met[SUPPORT] & ~met[QUERY] & ~np.isnan(ratings)
    items = [rng.permutation(np.flatnonzero(free[user])) for user in aside]
    packed = pack(data, aside)
    return Judged(
        [torch.from_numpy(rated) for rated in items],
        [torch.from_numpy(ratings[user, rated]) for user, rated in zip(aside, items, strict=True)],
        packed.pairs(SUPPORT, base_rewards),
        packed.pairs(QUERY, base_rewards),
        base_rewards,
        prior,
    )


def by_difference(
    values: Tensor,
    prompt: Tensor,
    *,
    power: float,
    factor: float = 1,
    most: float = torch.inf,
    near: float = 0,
    ties: bool = False,
    own_spread: bool = True,
    ranks: bool = False,
) -> tuple[Tensor, ...]:
    """Pairs of ``factor · 2/n · min(|Δ|/s, most)^power``; below ``near · s`` they count as nothing, or as ties."""
    first, second = torch.triu_indices(len(values), len(values), 1)
    same = prompt[first] == prompt[second]
    first, second = first[same], second[same]
    shown = values.argsort().argsort().double() if ranks else values
    difference, spread = shown[first] - shown[second], shown.std(correction=0)
    if not own_spread:  # that of the prompt's ratings, which only prompts of two are used for
        spread = difference.abs() / 2
    away = torch.where(difference == 0, 0.0, difference.abs() / spread)
    tie = ties & (away < near)
    weight = torch.where(tie, 1.0, (away > 0) * (away >= near) * away.clamp_max(most) ** power)
    better, worse = torch.where(difference < 0, second, first), torch.where(difference < 0, first, second)
    return better, worse, weight * factor * 2 / torch.bincount(prompt)[prompt[first]], tie.double()


def shipped(values: Tensor, prompt: Tensor, *, most_distances: int = 32) -> tuple[Tensor, ...]:
    """The rule of mrm_sdk.core.ratings."""
    ones = np.ones(len(values))
    better, worse, weight = map(
        torch.from_numpy, rated_pairs(values.numpy(), prompt.numpy(), ones, most_distances=most_distances)
    )
    return better, worse, weight, torch.zeros_like(weight)


Rule = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
RATINGS: dict[str, Rule] = {
    "2/n": partial(by_difference, power=0),
    "3/n": partial(by_difference, power=0, factor=1.5),
    "3/n, nothing if |Δ| < s/4": partial(by_difference, power=0, factor=1.5, near=0.25),
    "3/n, a tie if |Δ| < s/4": partial(by_difference, power=0, factor=1.5, near=0.25, ties=True),
    "3/n · √min(|Δ|/s, 1)": partial(by_difference, power=0.5, factor=1.5, most=1),
    "3/n · min(|Δ|/s, 1)": partial(by_difference, power=1, factor=1.5, most=1),
    "2/n · √(|Δ|/s) (chosen)": shipped,
    "the same, s of the prompt": partial(by_difference, power=0.5, own_spread=False),
    "the same, |Δ| of ranks": partial(by_difference, power=0.5, ranks=True),
    "the same, 8 distances": partial(shipped, most_distances=8),
    "2/n · |Δ|/s": partial(by_difference, power=1),
}


def try_ratings(judged: Judged, rule: Rule, count: int, size: int = ALL, thumbs: bool = False) -> float:
    """Accuracy after ``count`` ratings each (or thumbs), of which every ``size`` share a prompt."""
    users = []
    for items, values in zip(judged.items, judged.values, strict=True):
        rated = values[:count].sign() if thumbs else values[:count]
        better, worse, weight, tie = rule(rated, torch.arange(len(rated)) // size)
        features = judged.base_rewards[items[:count]]
        users.append(Pairs(features[better] - features[worse], weight, tie))
    return judged.adapted(users)


def ranked(judged: Judged, size: int, count: int) -> Iterator[tuple[int, Tensor]]:
    """Those who rated enough jokes, with base rewards of ``count`` rankings, best first: [count, size, K]."""
    for user, (items, values) in enumerate(zip(judged.items, judged.values, strict=True)):
        if len(items) >= size * count:
            order = (-values[: size * count].view(count, size)).argsort(dim=-1, stable=True)
            yield user, judged.base_rewards[items[: size * count].view(count, size).gather(-1, order)]


def by_pairs(features: Tensor, prior: Prior, weigh: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Weights after all pairs of [users, rankings, n, K], weighed by how many places lie between the two."""
    size = features.shape[2]
    better, worse = torch.triu_indices(size, size, 1)
    z = features[:, :, better] - features[:, :, worse]
    strength = weigh((worse - better).double(), size).expand(z.shape[:3]).flatten(1, 2)
    return serve(Pairs(z.flatten(1, 2), strength, torch.zeros_like(strength)), prior)


def plackett_luce(features: Tensor, prior: Prior) -> Tensor:
    """Weights after Newton steps on ``ρ Σ (logsumexp of what is left − the one taken)`` and the prior."""
    weights = prior.w0.expand(len(features), -1)
    for _ in range(30):
        gradient = (weights - prior.w0) @ prior.precision
        hessian = prior.precision.expand(len(features), -1, -1)
        for rank in range(features.shape[2] - 1):
            left = features[:, :, rank:]
            share = torch.softmax((left * weights[:, None, None]).sum(-1), -1).unsqueeze(-1)
            mean = (share * left).sum(2)
            offset = left - mean.unsqueeze(2)
            gradient = gradient + prior.rho * (mean - left[:, :, 0]).sum(1)
            hessian = hessian + prior.rho * ((share * offset).mT @ offset).sum(1)
        weights = weights - torch.linalg.solve(hessian, gradient)
    return weights


RANKINGS: dict[str, Callable[[Tensor, Prior], Tensor]] = {
    "all pairs, 2/n each (chosen)": partial(by_pairs, weigh=lambda away, n: torch.full_like(away, 2 / n)),
    "all pairs, 3/n each": partial(by_pairs, weigh=lambda away, n: torch.full_like(away, 3 / n)),
    "all pairs, 1 each": partial(by_pairs, weigh=lambda away, n: torch.ones_like(away)),
    "neighbours, 1 each": partial(by_pairs, weigh=lambda away, n: (away == 1).double()),
    "neighbours, 2 each": partial(by_pairs, weigh=lambda away, n: 2 * (away == 1).double()),
    "Plackett–Luce": plackett_luce,
}


def try_rankings(judged: Judged, rule: Callable[[Tensor, Prior], Tensor], size: int, count: int) -> float:
    """Accuracy after ``count`` rankings of ``size`` jokes each."""
    users, features = zip(*ranked(judged, size, count), strict=True)
    query = Pairs(*(field[list(users)] for field in judged.query))
    return judged._replace(query=query).accuracy(rule(torch.stack(features), judged.prior))


Measure = Callable[[Judged], list[float]]


def show(title: str, columns: list[str], rows: dict[str, Measure], judged: list[Judged]) -> None:
    """Prints a table: one row per rule, the mean over seeds."""
    print(f"\n{title:30}" + "".join(f"{column:>12}" for column in columns))
    for name, measure in rows.items():
        means = np.mean([measure(one) for one in judged], 0)
        print(f"{name:30}" + "".join(f"{value:12.4f}" for value in means), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one seed and step, 60 people: shows that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)

    data = read_dataset(options.data, ratings=True)
    encoder = prepare_encoder("minilm", data, Settings(), no_progress).encoder
    embeddings = torch.from_numpy(embed_dataset(encoder, data, no_progress).embeddings)
    seeds = range(1 if options.quick else options.seeds)
    configs = [TrainingConfig(seed=seed).with_settings(iterations=1 if options.quick else 12) for seed in seeds]
    judged = [train(data, embeddings, config, 60 if options.quick else None) for config in configs]

    def after(shots: int) -> Measure:
        return lambda one: [one.accuracy(serve(one.support.first(shots), one.prior))]

    show("comparisons", ["accuracy"], {str(shots): after(shots) for shots in (0, 5, 10, 60)}, judged)
    settings = [(5,), (10,), (ALL,), (ALL, 2), (ALL, ALL, True)]
    show(
        "ratings: a pair counts",
        ["5", "10", "all", "by twos", "thumbs"],
        {name: lambda one, rule=rule: [try_ratings(one, rule, *s) for s in settings] for name, rule in RATINGS.items()},
        judged,
    )
    sizes = [(3, 1), (3, 4), (5, 1), (5, 4), (10, 1), (10, 3)]
    show(
        "rankings",
        [f"{count} of {size}" for size, count in sizes],
        {name: lambda one, rule=rule: [try_rankings(one, rule, *s) for s in sizes] for name, rule in RANKINGS.items()},
        judged,
    )


if __name__ == "__main__":
    main()
