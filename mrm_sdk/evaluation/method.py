"""What a method to compare is: a function that fits it to users, and what it is once it is fitted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from mrm_sdk.core.batching import Pairs
    from mrm_sdk.data.datasets import Dataset
    from mrm_sdk.progress import Progress


class FittedMethod(NamedTuple):
    """A method that scores an item by ``weights · features``; users differ in their weights alone.

    Args:
        features: of all items, [items, F] float64.
        adapt: support comparisons of a batch of users, [users, pairs, F] float64 -> weights [users, F] float64; without
            any support (every strength 0) it gives the weights of an unknown user.
        covariance: how sure they are, for probabilities: those weights and the same comparisons -> [users, F, F];
            ``None`` for a method that does not know.
        discounts_repetition: whether comparisons that repeat each other count less (:mod:`mrm_sdk.core.redundancy`);
            their strengths say so before ``adapt`` sees them.
    """

    features: Tensor
    adapt: Callable[[Pairs], Tensor]
    covariance: Callable[[Tensor, Pairs], Tensor] | None = None
    discounts_repetition: bool = False


class Fit(Protocol):
    """Fits a method to some users of a data set.

    Args:
        dataset: users' comparisons.
        users: indices into ``dataset.user_ids`` of those to learn from, in both phases; other users are not read.
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
    ) -> FittedMethod:
        """Fits the method."""
        ...


class Method(Protocol):
    """A method to compare: see :data:`mrm_sdk.evaluation.methods.METHODS`."""

    @property
    def fit(self) -> Fit:
        """The function that fits it."""
        ...
