"""Measures handcrafted features beside the embedding: whether they pay, and how much weight they should get.

Needs the extras ``[cpu,train,minilm]`` and data sets whose items have text, as the ``train`` folders of Jester and of
LLMFAO (docs/how.md). People are held out from training: of a data set with many people a quarter, another one for each
seed; of one with few people all of them, in five folds. Prints one row per share of the variance that features get::

    python export/experiments/choose_features.py JESTER/train LLMFAO/train [--seeds 5] [--single all] [--quick]

``--single`` adds a row per named feature (separated by commas), or for all of them: each alone beside the embedding.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mrm_sdk.data.datasets import Dataset, read_dataset
from mrm_sdk.data.vectors import embed_dataset
from mrm_sdk.encoders.handcrafted import NAMES, SHARE, Statistics, count_features
from mrm_sdk.evaluation.bootstrap import paired_intervals
from mrm_sdk.evaluation.measure import Measured, measure, merge
from mrm_sdk.evaluation.methods.mrm import as_served
from mrm_sdk.evaluation.metrics import worst_share
from mrm_sdk.evaluation.points import mean_by_user
from mrm_sdk.evaluation.splits import Split, fold_splits
from mrm_sdk.progress import no_progress
from mrm_sdk.settings import Settings
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.encoding import prepare_encoder
from mrm_sdk.training.fitting import fit

SHARES = (0.03, 0.1, 0.3, 1.0)
SHOTS = (0, 2, 10, 60)
MANY = 500


def variants(
    dataset: Dataset, embeddings: NDArray[np.float32], shares: Sequence[float], single: list[str]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Names and embeddings of the variants; the first is the embedding alone."""
    measured = count_features([(item.prompt, item.text or "") for item in dataset.items])

    def beside(features: NDArray[np.float32], share: float) -> NDArray[np.float32]:
        statistics = Statistics.of(features, embeddings, share=share)
        return np.concatenate([embeddings, statistics.apply(features)], 1)

    yield "without", embeddings
    for share in shares:
        yield f"share {share}", beside(measured, share)
    yield "features alone", beside(measured, 1.0)[:, embeddings.shape[1] :]
    for name in single:
        yield name, beside(measured[:, [NAMES.index(name)]], SHARE)


def splits(dataset: Dataset, seed: int) -> Iterator[Split]:
    if len(dataset.user_ids) >= MANY:
        yield next(iter(fold_splits(dataset, 4, seed)))
    else:
        yield from fold_splits(dataset, 5, seed)


def run(dataset: Dataset, embeddings: NDArray[np.float32], config: TrainingConfig) -> Measured:
    """Fits to the people of each split, and judges those held out."""
    parts = []
    for split in splits(dataset, config.seed):
        trained = fit(split.training, split.learners, embeddings, config, no_progress)
        fitted = as_served(trained, torch.from_numpy(embeddings))
        parts.append(measure(fitted, split.judged, split.users, SHOTS))
    return merge(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--single", default="", help="features to try alone, with commas; or all")
    parser.add_argument(
        "--quick", action="store_true", help="one seed, share and two steps of training: shows that it runs"
    )
    options = parser.parse_args()
    single = [*NAMES] if options.single == "all" else [name for name in options.single.split(",") if name]
    seeds, shares = range(1 if options.quick else options.seeds), (SHARES[-1:] if options.quick else SHARES)
    # Features are of the text: what single texts are known for would hide what they add.
    settings = {"iterations": 2 if options.quick else 12, "known_texts": False}
    configs = [TrainingConfig(seed=seed).with_settings(**settings) for seed in seeds]
    for path in options.data:
        dataset = read_dataset(path)
        encoder = prepare_encoder("minilm", dataset, Settings(), no_progress).encoder
        embeddings = np.asarray(embed_dataset(encoder, dataset, no_progress).embeddings, np.float32)
        print(f"\n{path}: accuracy at {SHOTS} comparisons, worst tenth; what the features add before and after all")
        alone = None
        for name, matrix in variants(dataset, embeddings, shares, single):
            runs = [run(dataset, matrix, config) for config in configs]
            accuracy = mean_by_user(runs, "accuracy")
            alone = accuracy if alone is None else alone
            worst = np.mean([worst_share(torch.from_numpy(one.accuracy[-1]), 0.1) for one in runs])
            line = f"{name:16}" + "".join(f" {value:.4f}" for value in (*accuracy.mean(1), worst))
            for interval in paired_intervals((accuracy - alone)[[0, -1]]):
                line += f" | {interval.difference:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
            print(line, flush=True)


if __name__ == "__main__":
    main()
