"""Measures a fitted method on each user, in batches of bounded memory.

Each user adapts to the first n support comparisons, for every n, and is judged on the query comparisons: with their
own weights, with those of another user of the same texts (the control), and with weights adapted to reversed choices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.core.batching import Pairs
from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.errors import DatasetError, TrainingError
from mrm_sdk.evaluation.method import FittedMethod
from mrm_sdk.evaluation.metrics import BINS, accuracy, brier, loss, margins, predicted, reliability, reverse
from mrm_sdk.progress import Progress, no_progress
from mrm_sdk.training.episodes import pack

# Numbers in the largest table of feature differences, [users, pairs, F]: 64 MB in double precision.
CELLS = 2**23


class Measured(NamedTuple):
    """The figures of each user at each number of shots.

    Args:
        users: indices into ``user_ids``, ascending, [users].
        questions: query comparisons of each that are no ties, [users].
        accuracy: with their own weights, [shots, users]; the next four have the same shape.
        control: with another user's weights; NaN if only one user was judged.
        flipped: with weights adapted to reversed choices.
        loss: mean Bradley–Terry loss in nats.
        brier: mean squared error of the predicted probability.
        reliability: sums over users, see :func:`~mrm_sdk.evaluation.metrics.reliability`, [shots, 3, bins].
    """

    users: NDArray[np.int64]
    questions: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    control: NDArray[np.float64]
    flipped: NDArray[np.float64]
    loss: NDArray[np.float64]
    brier: NDArray[np.float64]
    reliability: NDArray[np.float64]


def judgeable(dataset: Dataset, among: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Users (all, or those of ``among``) with a query comparison that is not a tie, ascending.

    Raises:
        DatasetError: there are none.
    """
    users = np.unique(dataset.user[(dataset.phase == QUERY) & ~dataset.tie])
    users = users if among is None else np.intersect1d(users, among)
    if not len(users):
        raise DatasetError("No user in this data set has a query comparison that is not a tie: nothing to judge by.")
    return users


def most_shots(dataset: Dataset, users: NDArray[np.int64]) -> int:
    """The largest number of support comparisons of a user among ``users``."""
    support = np.bincount(dataset.user[dataset.phase == SUPPORT], minlength=len(dataset.user_ids))
    return int(support[users].max())


def measure(
    fitted: FittedMethod,
    dataset: Dataset,
    users: NDArray[np.int64],
    shots: Sequence[int],
    *,
    cells: int = CELLS,
    progress: Progress = no_progress,
) -> Measured:
    """Adapts and judges ``users``.

    Args:
        fitted: the method to judge.
        dataset: the items that ``fitted`` has features of, and the users' comparisons.
        users: the users to judge, each :func:`judgeable`; at least one.
        shots: how many support comparisons to adapt to; a user with fewer adapts to all of them.
        cells: bound on the size of a batch, in numbers; a single user may exceed it.
        progress: called with stage, done, total.

    Returns:
        The figures, ordered by user.

    Raises:
        TrainingError: adapting gave NaN or infinity.
    """
    width = _most_comparisons(dataset)
    users = users[np.lexsort((width[users], _best_known_text(dataset)[users]))]
    # The user just before judged the same texts, as far as there is one. None comes before the first.
    previous = _Episode.of(dataset, users[-1:], fitted, shots).adapt(fitted)[0]
    # Allocated once: small arrays kept from each batch would fragment the heap between the large ones.
    figures = np.empty((5, len(shots), len(users)))
    questions = np.bincount(dataset.user[(dataset.phase == QUERY) & ~dataset.tie], minlength=len(dataset.user_ids))
    sums = np.zeros((len(shots), 3, BINS))
    done = 0
    for batch in _batches(users, width, cells // fitted.features.shape[1]):
        episode = _Episode.of(dataset, batch, fitted, shots)
        own, flipped = episode.adapt(fitted)
        control = torch.cat([previous[:, -1:], own[:, :-1]], 1)
        previous = own
        query, margin = episode.query, margins(episode.query, own)
        values = [accuracy(query, margin), *(accuracy(query, margins(query, w)) for w in (control, flipped))]
        margin = episode.probable(fitted, own, margin)
        values += [loss(query, margin), brier(query, margin)]
        figures[:, :, done : done + len(batch)] = torch.stack(values).numpy()
        sums += reliability(query, margin).numpy()
        progress("evaluating", done := done + len(batch), len(users))
    if len(users) == 1:
        figures[1] = np.nan
    order = np.argsort(users)
    return Measured._make([users[order], questions[users[order]].astype(float), *figures[..., order], sums])


def merge(parts: Sequence[Measured]) -> Measured:
    """Merges the figures of disjoint groups of users, ordered by user."""
    *figures, reliability = zip(*parts, strict=True)
    users = figures[0]
    order = np.argsort(np.concatenate(users), kind="stable")
    ordered = (np.concatenate(figure, -1)[..., order] for figure in figures)
    return Measured._make([*ordered, np.sum(reliability, axis=0)])


class _Episode(NamedTuple):
    """Both halves of a batch of users; the support once for each number of shots."""

    supports: list[Pairs]
    query: Pairs

    @classmethod
    def of(cls, dataset: Dataset, users: NDArray[np.int64], fitted: FittedMethod, shots: Sequence[int]) -> _Episode:
        packed = pack(dataset, users)
        # Differences are taken in the features' precision, as the store does; what follows is double, as serving is.
        support, query = (
            Pairs(*(field.double() for field in packed.pairs(phase, fitted.features))) for phase in (SUPPORT, QUERY)
        )
        supports = [support.first(n) for n in shots]
        if fitted.discounts_repetition:
            supports = [
                part._replace(strength=packed.independent(n).strength[:, SUPPORT].double())
                for n, part in zip(shots, supports, strict=True)
            ]
        return cls(supports, query)

    def adapt(self, fitted: FittedMethod) -> tuple[Tensor, Tensor]:
        """Weights at each number of shots, [shots, users, F], adapted to the users' choices and to their reverse."""
        both = [
            torch.stack([fitted.adapt(support) for support in supports])
            for supports in (self.supports, map(reverse, self.supports))
        ]
        if not all(bool(torch.isfinite(weights).all()) for weights in both):
            raise TrainingError("Adapting gave NaN or infinity: nothing can be judged. Check the embeddings' scale.")
        return both[0], both[1]

    def probable(self, fitted: FittedMethod, weights: Tensor, margin: Tensor) -> Tensor:
        """Margins [shots, users, pairs] of adapted weights [shots, users, F] as probabilities should use them."""
        if fitted.covariance is None:
            return margin
        parts = zip(self.supports, weights, margin, strict=True)
        return torch.stack([predicted(self.query, m, fitted.covariance(w, support)) for support, w, m in parts])


def _best_known_text(dataset: Dataset) -> NDArray[np.int64]:
    """Of the texts that judge each user, the one that most comparisons are of: users who share it are of one crowd."""
    query = dataset.phase == QUERY
    user, chosen, rejected = dataset.user[query], dataset.chosen[query], dataset.rejected[query]
    counts = np.bincount(np.concatenate([chosen, rejected]), minlength=1)
    rank = np.empty(len(counts), np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    best = np.full(len(dataset.user_ids), -1)
    np.maximum.at(best, user, np.maximum(rank[chosen], rank[rejected]))
    return best


def _most_comparisons(dataset: Dataset) -> NDArray[np.int64]:
    """Comparisons in the larger half of each user: the width of a table that holds them."""
    counts = np.bincount(dataset.user * 2 + dataset.phase, minlength=2 * len(dataset.user_ids))
    width: NDArray[np.int64] = counts.reshape(-1, 2).max(1)
    return width


def _batches(users: NDArray[np.int64], width: NDArray[np.int64], cells: int) -> Iterator[NDArray[np.int64]]:
    """Cuts users so that a padded batch holds at most ``cells`` comparisons, or is one user."""
    start = 0
    while start < len(users):
        padded = np.maximum.accumulate(width[users[start:]]) * np.arange(1, len(users) - start + 1)
        stop = start + max(1, int(np.searchsorted(padded, cells, side="right")))
        yield users[start:stop]
        start = stop
