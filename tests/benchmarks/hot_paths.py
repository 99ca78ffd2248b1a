"""What adaptation costs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mrm_sdk import Bundle
from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.inner_loop import SERVING_STEPS, SERVING_TOLERANCE, newton_serving
from mrm_sdk.core.posterior import laplace_covariance
from mrm_sdk.data.datasets import read_dataset
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.pipeline import train_bundle
from tests.benchmarks.table import median, publish
from tests.conftest import write_embedded_dataset

DIMENSION, K = 384, 8


def small_bundle(folder: Path) -> Bundle:
    """A bundle of D = 384 and K = 8, trained in ``folder``."""
    data = write_embedded_dataset(folder / "data", dimension=DIMENSION, users=20)
    train_bundle(read_dataset(data), folder / "bundle", config=TrainingConfig(base_functions=K))
    return Bundle(folder / "bundle")


def pairs(users: int, count: int) -> Pairs:
    z = torch.randn(users, count, K, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Pairs(z, torch.ones(users, count).double(), torch.zeros(users, count).double())


def one_newton_pass(z: np.ndarray[Any, Any], strength: np.ndarray[Any, Any]) -> None:
    """The floor of adaptation: a single Newton step in numpy, without a check of any kind."""
    lost = 1 / (1 + np.exp(z @ np.ones(K)))
    hessian = (z * (strength * lost * (1 - lost))[:, None]).T @ z + np.eye(K)
    np.linalg.solve(hessian, -(strength * lost) @ z)


def in_torch(bundle: Bundle, users: Pairs) -> None:
    """What a batch goes through, and a single user did before."""
    weights = newton_serving(users, bundle.prior, max_steps=SERVING_STEPS, tolerance=SERVING_TOLERANCE)
    laplace_covariance(weights, users, bundle.prior)


@contextmanager
def busy_cores() -> Iterator[None]:
    """Every core has another process to run meanwhile."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def adaptation(bundle: Bundle) -> list[dict[str, Any]]:
    rows = []
    for count in (20, 200):
        one = pairs(1, count)
        z, strength = one.z[0].numpy(), one.strength[0].numpy()
        floor = median(lambda z=z, strength=strength: one_newton_pass(z, strength), 300)
        for where, load in (("", nullcontext), (", cores busy", busy_cores)):
            with load():
                ours = median(lambda p=one: bundle.adapt(p), 300)
                theirs = median(lambda p=one: in_torch(bundle, p), 30)
            what = f"adapt one user, {count} comparisons{where}"
            rows.append(row(what, ours, floor, "one Newton step in numpy, idle"))
            rows.append(row(f"{what}: in torch, two threads", theirs, floor, "one Newton step in numpy, idle"))
    many = pairs(4096, 20)
    each = median(lambda: bundle.adapt(many), 5) / 4096
    rows.append(
        row("adapt 4,096 users in one batch, per user", each, floor, "one Newton step in numpy, 200 comparisons")
    )
    return rows


def row(what: str, seconds: float, floor: float, floor_is: str) -> dict[str, Any]:
    return {"what": what, "milliseconds": 1000 * seconds, "ratio": seconds / floor, "floor": floor_is}


def main() -> None:
    """Measures, prints and saves."""
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as scratch:
        rows = adaptation(small_bundle(Path(scratch)))
    columns = {"milliseconds": ("median ms", ".3f"), "ratio": ("ratio", ".1f"), "floor": ("to", "")}
    publish("hot_paths", rows, columns)
