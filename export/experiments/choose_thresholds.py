"""The experiment behind the threshold of ratings: what single thumbs and ratings teach, on people set aside.

Needs the extras ``[cpu,train,minilm]`` and the ``train`` folder of a data set. People are judged on their query
comparisons after the first n ratings of their support, each as if on a prompt of its own, and after all of them on one
prompt. Where a data set has no ratings, thumbs are drawn: one response of each comparison at random, up if it was
chosen. Prints one row per rule: what it adds to accuracy and to loss of pairs alone, in hundredths, with the standard
error over people::

    python export/experiments/choose_thresholds.py path/to/jester/train [--folds 4] [--unseen path/to/jester/unseen]
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.core.batching import Pairs, pad
from mrm_sdk.core.inner_loop import SERVING_STEPS, SERVING_TOLERANCE, Prior, newton_serving
from mrm_sdk.core.ratings import compare_ratings, pairs_of
from mrm_sdk.data import QUERY, SUPPORT, Dataset, read_dataset
from mrm_sdk.data.vectors import embed_dataset
from mrm_sdk.encoders import Encoder
from mrm_sdk.evaluation.metrics import accuracy, loss, margins
from mrm_sdk.progress import no_progress
from mrm_sdk.settings import Settings
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.encoding import prepare_encoder
from mrm_sdk.training.episodes import pack
from mrm_sdk.training.fitting import Trained, fit

ALL = 10_000
# Thumbs count this much of a comparison; precision of the threshold's prior.
RULES = [(factor, precision) for factor in (0.25, 0.5, 1.0, 1.5) for precision in (1.0,)]
RULES += [(1.0, 0.1), (1.0, 4.0), (1.0, 16.0)]


class Judged(NamedTuple):
    """People set aside: features and values of what they rated, in random order, and what they are judged on."""

    base_rewards: list[NDArray[np.float64]]
    values: list[NDArray[np.float64]]
    query: Pairs
    prior: Prior


def rated(
    data: Dataset, people: NDArray[np.int64], rng: np.random.Generator
) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Items and values of each person's support ratings, or of thumbs drawn from comparisons."""
    support = data.phase == SUPPORT
    told = []
    for user in people:
        rows = rng.permutation(np.flatnonzero(support & (data.user == user) & ~data.tie))
        if data.ratings is None:
            up = rng.random(len(rows)) < 0.5
            told.append((np.where(up, data.chosen[rows], data.rejected[rows]), np.where(up, 1.0, -1.0)))
            continue
        judged = (data.user == user) & (data.phase == QUERY)
        query = np.concatenate([data.chosen[judged], data.rejected[judged]])
        mine = rng.permutation(np.flatnonzero(data.ratings.user == user))
        mine = mine[~np.isin(data.ratings.item[mine], query)]
        told.append((data.ratings.item[mine], data.ratings.value[mine]))
    return told


def judged_by(trained: Trained, data: Dataset, people: NDArray[np.int64], embeddings: Tensor, seed: int) -> Judged:
    """What is known of people under a fit that has not seen them."""
    base_rewards = trained.module(embeddings).detach().double()
    told = rated(data, people, np.random.default_rng(seed))
    features = [base_rewards.numpy()[items] for items, _ in told]
    query = pack(data, people).pairs(QUERY, base_rewards)
    return Judged(features, [values for _, values in told], query, trained.prior)


def outcome(judged: Judged, rule: tuple[float, float], count: int, apart: bool) -> NDArray[np.float64]:
    """Accuracy and loss of each person after ``count`` ratings, [2, people]."""
    factor, precision = rule
    users = []
    for features, values in zip(judged.base_rewards, judged.values, strict=True):
        number = min(count, len(values))
        prompt = np.arange(number) * apart
        pairs = pairs_of(compare_ratings(values[:number], prompt, np.ones(number)), features[:number])
        users.append(pairs._replace(strength=torch.where(pairs.z[:, -1] != 0, factor, 1.0) * pairs.strength))
    prior = judged.prior.with_threshold()
    prior.precision[-1, -1] = precision * prior.rho
    weights = newton_serving(pad(users), prior, max_steps=SERVING_STEPS, tolerance=SERVING_TOLERANCE)[:, :-1]
    margin = margins(judged.query, weights)
    return torch.stack([accuracy(judged.query, margin), loss(judged.query, margin)]).numpy()


def show(groups: list[Judged]) -> None:
    """Prints a table."""
    settings = [("2 apart", 2, True), ("10 apart", 10, True), ("40 apart", 40, True), ("all together", ALL, False)]
    before = [np.concatenate([outcome(g, (0.0, 1.0), n, apart) for g in groups], 1) for _, n, apart in settings]
    print(f"{'counts, precision':20}" + "".join(f"{name:>30}" for name, *_ in settings))
    print(f"{'pairs alone':20}" + "".join(f"{a:>20.4f}{b:>10.4f}" for a, b in (np.nanmean(b, 1) for b in before)))
    for rule in RULES:
        cells = ""
        for (_, n, apart), start in zip(settings, before, strict=True):
            gain = 100 * (np.concatenate([outcome(g, rule, n, apart) for g in groups], 1) - start)
            gain = gain[:, ~np.isnan(gain).any(0)]
            error = gain.std(1) / gain.shape[1] ** 0.5
            cells += "".join(f"{g:+8.2f} ± {e:.2f}" for g, e in zip(gain.mean(1), error, strict=True)) + "  "
        print(f"{rule[0]:<8g}{rule[1]:<8g}    {cells}", flush=True)


def embedded(data: Dataset, encoder: Encoder) -> tuple[Dataset, Tensor]:
    """The data set and its items' embeddings; ratings stay, as no text is refused."""
    return data, torch.from_numpy(np.asarray(embed_dataset(encoder, data, no_progress).embeddings, np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=int, default=4, help="of the four quarters of the people, judge so many")
    parser.add_argument("--unseen", type=Path, help="judge these people instead, by a fit to all others")
    parser.add_argument("--quick", action="store_true", help="one fold and step, 60 people: shows that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)

    data = read_dataset(options.data, ratings=True)
    encoder = prepare_encoder("minilm", data, Settings(), no_progress).encoder
    data, embeddings = embedded(data, encoder)
    people = np.random.default_rng(0).permutation(np.unique(data.user[data.phase == QUERY]))
    config = TrainingConfig().with_settings(iterations=1 if options.quick else 12)
    if options.unseen is not None:
        trained = fit(data, people, embeddings.numpy(), config, no_progress)
        unseen, vectors = embedded(read_dataset(options.unseen, ratings=True), encoder)
        show([judged_by(trained, unseen, np.unique(unseen.user[unseen.phase == QUERY]), vectors, seed=0)])
        return
    groups = []
    for number, aside in enumerate(np.array_split(people, 4)[: 1 if options.quick else options.folds]):
        trained = fit(data, np.setdiff1d(people, aside), embeddings.numpy(), config, no_progress)
        judged = np.sort(aside)[: 60 if options.quick else None]
        groups.append(judged_by(trained, data, judged, embeddings, seed=number))
    show(groups)


if __name__ == "__main__":
    main()
