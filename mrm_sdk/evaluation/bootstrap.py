"""Paired bootstrap intervals over users: how far a mean difference could be chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95
_CELLS = 2**22


@dataclass(frozen=True)
class Interval:
    """A mean difference over users, and where 95 % of its bootstrap resamples lie.

    Args:
        difference: the mean itself.
        low: the 2.5 % quantile of the resamples.
        high: the 97.5 % quantile.
    """

    difference: float
    low: float
    high: float


def paired_intervals(differences: NDArray[np.float64], *, seed: int = 0) -> list[Interval]:
    """Percentile intervals of mean differences; all of them see the same :data:`RESAMPLES` resamples of users.

    The difference is taken within each user before users are drawn: what makes a user easy or hard for both sides
    cancels (B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13).

    Args:
        differences: one side minus the other per user, [m, users].
        seed: the only source of randomness.

    Returns:
        m intervals.
    """
    users = differences.shape[1]
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, RESAMPLES, block := max(1, _CELLS // users)):
        size = min(block, RESAMPLES - start)
        # How often each user was drawn, [size, users]: one product then serves all differences.
        drawn = rng.integers(users, size=(size, users)) + users * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * users).reshape(size, users)
        means.append(times.astype(np.float64) @ differences.T / users)
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    # If all differences are equal, rounding may put the mean just outside its resamples.
    return [
        Interval(float(mean), float(min(a, mean)), float(max(b, mean)))
        for mean, a, b in zip(differences.mean(1), low, high, strict=True)
    ]
