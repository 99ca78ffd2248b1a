"""Made-up people with known tastes, small enough to learn from in a moment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.data.datasets import Dataset
from mrm_sdk.schemas.items import Item
from mrm_sdk.training.config import EmpiricalBayesConfig, TrainingConfig

QUICK = TrainingConfig(outer=EmpiricalBayesConfig(iterations=3), base_functions=None)
# Cheap, and as good as any where the outer loop itself is not what is tested.
FIXED = TrainingConfig(outer=EmpiricalBayesConfig(iterations=3), base_functions=3)


def people(
    users: int = 12,
    *,
    items: int = 40,
    dimension: int = 6,
    pairs: int = 8,
    seed: int = 0,
    tastes: NDArray[np.float64] | None = None,
    noise: float = 0.0,
) -> Dataset:
    """Users who choose by ``taste · embedding``, with so many comparisons per phase; embeddings are the data set's own.

    Args:
        users: how many.
        items: how many.
        dimension: D.
        pairs: comparisons per user and phase.
        seed: the only source of randomness.
        tastes: [users, D]; by default they scatter around a common one.
        noise: 1: choices are Bradley–Terry; 0: users never err.
    """
    rng = np.random.default_rng(seed)
    embeddings = rng.standard_normal((items, dimension))
    drawn = rng.standard_normal((users, dimension)) + 0.5
    n = users * 2 * pairs
    user = np.repeat(np.arange(users), 2 * pairs)
    first = rng.integers(0, items, n)
    second = (first + rng.integers(1, items, n)) % items
    margin = ((embeddings[first] - embeddings[second]) * (drawn if tastes is None else tastes)[user]).sum(1)
    wins = margin + noise * rng.logistic(size=n) > 0
    return Dataset(
        items=[Item(None, f"text {i}", None) for i in range(items)],
        user_ids=[f"u{i}" for i in range(users)],
        user=user,
        chosen=np.where(wins, first, second),
        rejected=np.where(wins, second, first),
        tie=np.zeros(n, bool),
        strength=np.ones(n),
        phase=np.arange(n) // pairs % 2,
        event_ids=[str(i) for i in range(n)],
        created_at=[None] * n,
        sha256="made up",
        embeddings=embeddings.astype(np.float32),
    )


def embeddings_of(dataset: Dataset) -> NDArray[np.float32]:
    """Its own embeddings."""
    assert dataset.embeddings is not None
    return dataset.embeddings


def rows(dataset: Dataset, index: NDArray[np.int64]) -> Dataset:
    """The same people and items with these comparisons, each as often as it is named."""
    columns = {
        name: getattr(dataset, name)[index] for name in ("user", "chosen", "rejected", "tie", "strength", "phase")
    }
    return replace(dataset, **columns, event_ids=[str(i) for i in range(len(index))], created_at=[None] * len(index))


def quiet(stage: str, done: int, total: int) -> None:
    """Progress that is checked but not shown."""
    assert 0 <= done <= total, stage
