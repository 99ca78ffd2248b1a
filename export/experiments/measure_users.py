"""Measures from how many users on training pays: accuracy of other users, before and after they adapt.

Needs the extras ``[cpu,train,minilm]`` and a data set of many people whose items have text, as the ``train`` folder of
Jester (docs/how.md). For each seed a quarter of the people is judged, and of the others so many, drawn at random, are
trained on. Prints one row per number of users::

    python export/experiments/measure_users.py JESTER/train [--users 10,20,50,100,200,400] [--seeds 3] [--quick]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mrm_sdk.data.datasets import read_dataset
from mrm_sdk.data.vectors import embed_dataset
from mrm_sdk.evaluation.measure import measure
from mrm_sdk.evaluation.methods.mrm import as_served
from mrm_sdk.evaluation.splits import Split, fold_splits
from mrm_sdk.progress import no_progress
from mrm_sdk.settings import Settings
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.encoding import prepare_encoder
from mrm_sdk.training.fitting import fit

SHOTS = (0, 2, 10, 20)


def accuracy(split: Split, users: int, embeddings: NDArray[np.float32], config: TrainingConfig) -> NDArray[np.float64]:
    """Of the judged users, the mean at each number of shots, after a fit to some of the others."""
    learners = np.random.default_rng(config.seed).choice(split.learners, users, replace=False)
    trained = fit(split.training, np.sort(learners), embeddings, config, no_progress)
    fitted = as_served(trained, torch.from_numpy(embeddings))
    return measure(fitted, split.judged, split.users, SHOTS).accuracy.mean(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--users", default="10,20,50,100,200,400")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one seed, two steps of training: shows that it runs")
    options = parser.parse_args()
    dataset = read_dataset(options.data)
    encoder = prepare_encoder("minilm", dataset, Settings(), no_progress).encoder
    embeddings = np.asarray(embed_dataset(encoder, dataset, no_progress).embeddings, np.float32)
    print(f"{options.data}: accuracy at {SHOTS} comparisons; what 10 add, and how much that differs between seeds")
    for users in map(int, options.users.split(",")):
        runs = []
        for seed in range(1 if options.quick else options.seeds):
            config = TrainingConfig(seed=seed).with_settings(iterations=2 if options.quick else 12)
            runs.append(accuracy(next(iter(fold_splits(dataset, 4, seed))), users, embeddings, config))
        gain = [run[SHOTS.index(10)] - run[0] for run in runs]
        values = "".join(f" {value:.4f}" for value in np.mean(runs, 0))
        print(f"{users:5} |{values} | {np.mean(gain):+.4f} ± {np.std(gain):.4f}", flush=True)


if __name__ == "__main__":
    main()
