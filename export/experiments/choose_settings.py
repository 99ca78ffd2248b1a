"""Compares settings of meta-training on people set aside from the training data: how the defaults were chosen.

Needs the extras ``[cpu,train,minilm]``, the ``train`` folder of the Jester data (docs/how.md), and optionally that of
LLMFAO; prints one row per setting: accuracy of people who were set aside (a quarter of Jester's; all of LLMFAO's, in
five folds) and, on the demo's synthetic people, of newcomers on texts that training never saw::

    python export/experiments/choose_settings.py JESTER/train [LLMFAO/train] [--seeds 1] [--only NAME;…] [--quick]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mrm_sdk.core.inner_loop import SERVING_STEPS, SERVING_TOLERANCE, Prior, newton_serving
from mrm_sdk.data.datasets import Dataset, read_dataset
from mrm_sdk.data.vectors import embed_dataset
from mrm_sdk.evaluation.method import FittedMethod
from mrm_sdk.evaluation.protocol import judge
from mrm_sdk.progress import no_progress
from mrm_sdk.settings import Settings
from mrm_sdk.simulation.corpus import load_corpus
from mrm_sdk.simulation.users import draw_users, simulate_judgements
from mrm_sdk.training.config import MamlConfig, TrainingConfig
from mrm_sdk.training.encoding import prepare_encoder
from mrm_sdk.training.fitting import fit

# An earlier default: MAML, with one share of users set aside, however few there are.
MAML = {"outer": MamlConfig(embedding_noise=0.3), "base_functions": 8, "robust_gamma": 3.0, "large": 1}
SETTINGS: dict[str, dict[str, object]] = {
    "default": {},
    "K 4": {"base_functions": 4},
    "K 32": {"base_functions": 32},
    "K chosen": {"base_functions": None},
    "adam": MAML,
    "adam, plain mean": {**MAML, "robust_gamma": float("inf")},
    "adam, RPO γ 0.3": {**MAML, "robust_gamma": 0.3},
    "adam, 3 seeds as one": MAML,
    "adam, no noise": {**MAML, "embedding_noise": 0.0},
    "adam, all shots": {**MAML, "random_shots": False},
    "RPO γ 0.3": {"robust_gamma": 0.3},
    "RPO γ 0.1": {"robust_gamma": 0.1},
    "RPO γ 0.1, ratio 0.2": {"robust_gamma": 0.1, "robust_ratio": 0.2},
    "iterations 6": {"iterations": 6},
    "iterations 24": {"iterations": 24},
    "texts alone": {"known_texts": False},
    "directions 64": {"directions": 64},
    "hidden layer": {},
    "at most 20 pairs": {"max_pairs": 20},
}


class Data(NamedTuple):
    """People to learn from, people to judge, and embeddings of all items."""

    training: Dataset
    judged: Dataset
    splits: list[tuple[NDArray[np.int64], NDArray[np.int64]]]
    embeddings: NDArray[np.float32]
    shots: tuple[int, ...]


def load(jester: Path, llmfao: Path | None) -> dict[str, Data]:
    sets = {}
    data = read_dataset(jester)
    encoder = prepare_encoder("minilm", data, Settings(), no_progress).encoder

    def embed(dataset: Dataset) -> NDArray[np.float32]:
        return np.asarray(embed_dataset(encoder, dataset, no_progress).embeddings, np.float32)

    people = np.random.default_rng(0).permutation(len(data.user_ids))
    quarter = len(people) // 4
    split = (np.sort(people[quarter:]), np.sort(people[:quarter]))
    sets["jester"] = Data(data, data, [split], embed(data), (0, 2, 10, 60))
    if llmfao is not None:
        data = read_dataset(llmfao)
        folds = np.array_split(np.random.default_rng(0).permutation(len(data.user_ids)), 5)
        splits = [(np.setdiff1d(np.arange(len(data.user_ids)), fold), np.sort(fold)) for fold in folds]
        sets["llmfao"] = Data(data, data, splits, embed(data), (0, 2, 10, 60))
    # 64 prompts to learn from and 32 others to judge on; the demo's own 32 are left alone.
    questions, texts = load_corpus(), range(64)
    many = simulate_judgements(
        draw_users(1000, seed=11), questions, support=texts, query=texts, support_pairs=30, query_pairs=30, seed=11
    )
    newcomers = simulate_judgements(
        draw_users(300, seed=12), questions, support=range(64, 80), query=range(80, 96), support_pairs=20,
        query_pairs=40, seed=12, noisy_query=False,
    )  # fmt: skip
    row_of = {item.key: row for row, item in enumerate(many.items)}
    assert all(item.key in row_of for item in newcomers.items), "both draw from one corpus"
    rows = np.array([row_of[item.key] for item in newcomers.items])
    moved = replace(newcomers, items=many.items, chosen=rows[newcomers.chosen], rejected=rows[newcomers.rejected])
    split = (np.arange(1000), np.arange(300))
    sets["new texts"] = Data(many, moved, [split], embed(many), (0, 2, 10))
    return sets


def fit_setting(name: str, data: Data, users: NDArray[np.int64], config: TrainingConfig) -> FittedMethod:
    """One row's method, fitted to some of the people."""
    embeddings = data.embeddings
    if name == "hidden layer":
        # Fixed and random: what one layer adds before anything in it is learned.
        layer = np.random.default_rng(config.seed).standard_normal((embeddings.shape[1], 512)).astype(np.float32)
        hidden = np.maximum((embeddings - embeddings.mean(0)) @ layer, 0)
        embeddings = np.concatenate([embeddings, hidden * (embeddings.std() / hidden.std())], 1)
    seeds = (0, 1, 2) if name.endswith("as one") else (0,)
    features, priors = [], []
    for seed in seeds:
        trained = fit(data.training, users, embeddings, replace(config, seed=config.seed + 100 * seed), no_progress)
        with torch.no_grad():
            features.append(trained.module(torch.from_numpy(embeddings)).double())
        priors.append(trained.prior)
    # Rewards of several seeds are averaged: one model whose kernel is the mean of theirs.
    prior = Prior(
        torch.cat([p.w0 for p in priors]) / len(seeds),
        torch.block_diag(*(p.precision / p.rho for p in priors)) * len(seeds),
        torch.ones((), dtype=torch.float64),
    )
    return FittedMethod(
        torch.cat(features, 1),
        partial(newton_serving, prior=prior, max_steps=SERVING_STEPS, tolerance=SERVING_TOLERANCE),
        discounts_repetition=True,
    )


def measure(name: str, data: Data, config: TrainingConfig) -> list[float]:
    """Accuracy at each number of shots, of the worst tenth, and with another's weights; and seconds per fit."""
    rows, seconds = [], 0.0
    for users, judged in data.splits:
        began = time.perf_counter()
        fitted = fit_setting(name, data, users, config)
        seconds += (time.perf_counter() - began) / len(data.splits)
        report = judge(fitted, data.judged, users=judged, shots=data.shots)
        last = report.points[-1]
        figures = [point.accuracy for point in report.points] + [last.worst_tenth, last.control or 0.0]
        rows.append((len(report.user_ids), figures))
    weights = [count for count, _ in rows]
    return [*np.average([figures for _, figures in rows], axis=0, weights=weights), seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jester", type=Path)
    parser.add_argument("llmfao", type=Path, nargs="?")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", help="names of settings, separated by semicolons")
    parser.add_argument("--quick", action="store_true", help="two steps of training: shows that it runs")
    options = parser.parse_args()
    sets = load(options.jester, options.llmfao)
    for name, data in sets.items():
        print(f"{name}: accuracy at {data.shots} comparisons; worst tenth, another's weights; seconds per fit")
    for name, changes in SETTINGS.items():
        if options.only and name not in options.only.split(";"):
            continue
        line = f"{name:22}"
        for data in sets.values():
            settings = dict(changes)
            if options.quick:
                settings |= {"steps" if "outer" in changes else "iterations": 2}
            configs = [TrainingConfig(seed=seed).with_settings(**settings) for seed in range(options.seeds)]
            *figures, seconds = np.mean([measure(name, data, config) for config in configs], 0)
            line += " | " + " ".join(f"{value:.4f}" for value in figures) + f" {seconds:4.0f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
