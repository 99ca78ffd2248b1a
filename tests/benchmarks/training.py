"""How fast meta-training is at the size of PRISM, and the memory it takes.

650 users with 3 conversations in support and in query, each of 3 comparisons. Every fit runs in a process of its own,
on one core. ``paper`` visits users by gradient steps, ``newton`` by EM steps.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mrm_sdk.data.datasets import read_dataset
from mrm_sdk.training.config import EmpiricalBayesConfig, MamlConfig, TrainingConfig
from mrm_sdk.training.fitting import fit
from tests.benchmarks.generated import write_conversations
from tests.benchmarks.table import median, publish
from tests.benchmarks.watched import noted, watch

USERS = 650
REPEATS = 3
EPOCHS = 5
QUOTED = {
    "what": "published implementation, K = 2, D = 384: quoted, not measured here",
    "users_per_second": 310.0,
}


def measure(folder: Path, preset: str, size: int, floor: float, floor_is: str) -> dict[str, Any]:
    """One row: medians over fits."""
    runs = []
    for _ in range(REPEATS):
        log = folder / "log"
        watched = watch(["-m", "tests.benchmarks.training", folder / "data", preset, size, log], log)
        runs.append({**json.loads(watched.out), "peak_mb": watched.peak / 1e6, "anonymous_mb": watched.anonymous / 1e6})
    row = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    return {**row, "ratio": row["seconds_per_pass"] / floor, "floor": floor_is}


def fit_here(data: Path, preset: str, size: int, log: Path) -> dict[str, float]:
    """Fits once; a pass is one visit to every user."""
    config = replace(TrainingConfig.preset(preset), base_functions=size)
    by_gradient = isinstance(config.outer, MamlConfig)
    if by_gradient:
        config = config.with_settings(epochs=EPOCHS)
    dataset = read_dataset(data)
    assert dataset.embeddings is not None
    steps: list[tuple[int, float]] = []
    with noted(log) as report:

        def progress(stage: str, done: int, total: int) -> None:
            report(stage, done, total)
            if stage == "meta-training":
                steps.append((done, time.perf_counter()))

        began = time.perf_counter()
        fit(dataset, np.arange(len(dataset.user_ids)), dataset.embeddings, config, progress)
        seconds = time.perf_counter() - began
    # The last steps of EM are over all users; those before left out the ones that were set aside.
    last = steps if by_gradient else steps[-config.empirical_bayes.iterations :]
    (first, start), (final, end) = last[0], last[-1]
    rate = (config.maml.users_per_batch if by_gradient else USERS) * (final - first) / (end - start)
    fitted = {} if by_gradient else {"fit_seconds": seconds}
    return {"users_per_second": rate, "seconds_per_pass": USERS / rate, **fitted}


def product_seconds(data: Path, size: int) -> float:
    """The floor: all embeddings, in memory, times a matrix [D, size]."""
    embeddings = torch.from_numpy(np.load(data / "embeddings.npy").astype(np.float32))
    matrix = torch.randn(embeddings.shape[1], size)
    return median(lambda: embeddings @ matrix, 5)


def main() -> None:
    """Measures, prints and saves."""
    torch.set_num_threads(1)
    rows = []
    for dimension in (384, 4096):
        with tempfile.TemporaryDirectory() as scratch:
            data = write_conversations(Path(scratch) / "data", users=USERS, dimension=dimension)
            for preset in ("paper", "newton"):
                for size in (2, 16):
                    width = size if preset == "paper" else EmpiricalBayesConfig().directions
                    floor = f"embeddings [{USERS * 24}, {dimension}] @ [{dimension}, {width}]"
                    row = measure(Path(scratch), preset, size, product_seconds(data, width), floor)
                    rows.append({"what": f"{preset}, K = {size}, D = {dimension}", **row})
    columns = {
        "users_per_second": ("users/s", ",.0f"),
        "fit_seconds": ("whole fit s", ".1f"),
        "peak_mb": ("peak MB", ",.0f"),
        "anonymous_mb": ("anonymous MB", ",.0f"),
        "ratio": ("pass / floor", ".1f"),
        "floor": ("floor", ""),
    }
    publish("training", [*rows, QUOTED], columns)


if __name__ == "__main__":
    print(json.dumps(fit_here(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))))
