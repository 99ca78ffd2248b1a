"""Tiny methods whose figures are known beforehand, and what several tests of this folder ask."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.core.batching import Pairs
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.evaluation.method import Fit, FittedMethod
from mrm_sdk.progress import Progress


def total(support: Pairs) -> Tensor:
    """Weights that point to where the chosen responses lie: the sum of all differences; a tie says nothing."""
    return (support.z * (support.strength * (1 - support.tie)).unsqueeze(-1)).sum(1)


@dataclass
class Adding:
    """Starts at the sum over training users, scaled by ``common``, and adds a user's own differences."""

    common: float = 0.01
    seen: list[tuple[Dataset, NDArray[np.int64], int]] = field(default_factory=list)

    @property
    def fit(self) -> Fit:
        """The method itself; it notes what it was handed."""
        return self._fit

    def _fit(
        self, dataset: Dataset, users: NDArray[np.int64], embeddings: Tensor, *, seed: int, progress: Progress
    ) -> FittedMethod:
        self.seen.append((dataset, users, seed))
        progress("adding", 1, 1)
        features = embeddings.double()
        rows = np.isin(dataset.user, users)
        start = self.common * (features[dataset.chosen[rows]] - features[dataset.rejected[rows]]).sum(0)
        return FittedMethod(features, lambda support: start + total(support))


class Ignoring(Adding):
    """Never adapts."""

    def _fit(
        self, dataset: Dataset, users: NDArray[np.int64], embeddings: Tensor, *, seed: int, progress: Progress
    ) -> FittedMethod:
        fitted = super()._fit(dataset, users, embeddings, seed=seed, progress=progress)
        return FittedMethod(fitted.features, lambda support: fitted.adapt(support.first(0)))


def assert_self_contained(html: str) -> None:
    """Nothing is loaded from elsewhere: the only addresses are the names of SVG's dialects."""
    assert set(re.findall(r"https?://[^\s\"'<>]*", html)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    for word in ("<script", "<link", "<img", "@import", "src=", "<?xml", "<!DOCTYPE svg"):
        assert word not in html
    assert all(target.startswith("#") for target in re.findall(r"href=\"([^\"]*)", html))
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)", html))
