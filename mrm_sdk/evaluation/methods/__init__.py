"""The methods a bundle is compared with, behind one interface; imports only the standard library."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from mrm_sdk.data.datasets import Dataset
    from mrm_sdk.evaluation.method import Fitted
    from mrm_sdk.progress import Progress


class Fit(Protocol):
    """Fits a method to some users of a data set.

    Args:
        dataset: users' comparisons.
        users: indices into ``dataset.user_ids`` of those to learn from, in both phases; nobody else is looked at.
        embeddings: of all items, [items, D] float32.
        seed: the only source of randomness.
        progress: called with stage, done, total.

    Returns:
        The fitted method.

    Raises:
        TrainingError: these users cannot be learned from.
        InvalidInputError: users or embeddings are not those of the data set.
        MissingDependencyError: the method's extra is not installed.
    """

    def __call__(
        self, dataset: Dataset, users: NDArray[np.int64], embeddings: Tensor, *, seed: int, progress: Progress
    ) -> Fitted:
        """Fits the method."""
        ...


@dataclass(frozen=True)
class Method:
    """A method by name.

    Args:
        description: one line.
        module: of this folder.
        function: a :class:`Fit` in it.
    """

    description: str
    module: str
    function: str = "fit"

    @property
    def fit(self) -> Fit:
        """The function that fits it; its module is imported now."""
        return cast(Fit, getattr(import_module(f"{__name__}.{self.module}"), self.function))


METHODS: dict[str, Method] = {
    "population": Method("one reward for all users (Bradley–Terry); nobody is adapted to", "population"),
    "per_user": Method("a logistic regression for every user alone; nothing is learned from others", "per_user"),
    "lore": Method("a low-rank basis of rewards, mixed for every user (LoRe, arXiv 2504.14439)", "lore"),
    "in_context": Method("a set network that reads the comparisons and answers with weights", "in_context"),
    "paper": Method("Meta Reward Modeling as published (arXiv 2601.18731)", "meta", "fit_paper"),
    "newton": Method("Meta Reward Modeling with a learned prior and Newton steps; the default", "meta", "fit_newton"),
}
