"""Splits users into those to learn from and those to judge, before anything is fitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.data.contents import QUERY
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.errors import ConfigurationError, DatasetError
from mrm_sdk.evaluation.measure import judgeable

_T = TypeVar("_T")


class Split(NamedTuple):
    """One fit and the users it is judged by.

    Args:
        training: a data set with the comparisons of the users to learn from, and no others.
        learners: indices into its ``user_ids``, ascending.
        judged: a data set with the same items.
        users: indices into its ``user_ids``, of those to judge.
    """

    training: Dataset
    learners: NDArray[np.int64]
    judged: Dataset
    users: NDArray[np.int64]


def fold_splits(dataset: Dataset, folds: int, seed: int) -> Iterator[Split]:
    """Splits the users at random, so that each is judged once, by a fit to the users of the other folds.

    Users that cannot be judged are learned from in every fold, if they can be.

    Raises:
        ConfigurationError: fewer than 2 folds, or more than there are users to judge.
        DatasetError: no user can be judged.
    """
    users = judgeable(dataset)
    if not 2 <= folds <= len(users):
        raise ConfigurationError(
            f"Folds must be 2 or more, and at most the {len(users)} users who can be judged; not {folds}."
        )
    learners = learners_of(dataset)
    shuffled = np.random.default_rng(seed).permutation(users)

    def split(held_out: NDArray[np.int64]) -> Split:
        others = np.setdiff1d(learners, held_out)
        return Split(only_rows(dataset, np.flatnonzero(np.isin(dataset.user, others))), others, dataset, held_out)

    # One at a time: each holds a copy of most of the rows.
    return (split(np.sort(shuffled[fold::folds])) for fold in range(folds))


def unseen_split(dataset: Dataset, unseen: Dataset) -> Split:
    """Learns from all users of one data set and judges all of another; texts of both are the same items.

    Raises:
        DatasetError: a user is in both, no user can be judged, or the embeddings differ in size.
    """
    both = set(dataset.user_ids) & set(unseen.user_ids)
    if both:
        raise DatasetError(
            f"Users are in both data sets ({len(both)}, by their ids): a user who is judged must not be learned from. "
            "Remove them from one, or give them other ids if they are other people."
        )
    if dataset.dimension != unseen.dimension:
        sizes = f"{dataset.dimension} and {unseen.dimension}"
        raise DatasetError(f"Embeddings of the two data sets must have one size, or none; found {sizes}.")
    first, second = dataset.items, unseen.items
    shift = len(first)
    items = _LazySequence(shift + len(second), lambda i: first[i] if i < shift else second[i - shift])
    training = replace(dataset, items=items, embeddings=None)
    number = _same_items(dataset, unseen)
    judged = replace(
        unseen, items=items, embeddings=None, chosen=number[unseen.chosen], rejected=number[unseen.rejected]
    )
    return Split(training, learners_of(dataset), judged, judgeable(unseen))


def _same_items(dataset: Dataset, unseen: Dataset) -> NDArray[np.int64]:
    """Where items of ``unseen`` stand among those of both: a text of both data sets is one item, [items of unseen]."""
    number = np.arange(len(unseen.items)) + len(dataset.items)
    first = {dataset.items[i].key: i for i in np.unique([dataset.chosen, dataset.rejected]).tolist()}
    for i in np.unique([unseen.chosen, unseen.rejected]).tolist():
        number[i] = first.get(unseen.items[i].key, number[i])
    return number


def learners_of(dataset: Dataset) -> NDArray[np.int64]:
    """Users who can be learned from: as in training, those with a query comparison."""
    return np.unique(dataset.user[dataset.phase == QUERY])


def only_rows(dataset: Dataset, rows: NDArray[np.int64]) -> Dataset:
    """The data set with some of its comparisons alone; items and users keep their numbers."""
    return replace(
        dataset,
        **{name: getattr(dataset, name)[rows] for name in ("user", "chosen", "rejected", "tie", "strength", "phase")},
        event_ids=_LazySequence(len(rows), lambda i: dataset.event_ids[int(rows[i])]),
        created_at=_LazySequence(len(rows), lambda i: dataset.created_at[int(rows[i])]),
        ratings=None,
    )


class _LazySequence(Sequence[_T]):
    """A sequence whose elements are made on access, because they are costly and seldom used."""

    def __init__(self, length: int, look_up: Callable[[int], _T]) -> None:
        self._length, self._look_up = length, look_up

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> _T: ...
    @overload
    def __getitem__(self, index: slice) -> list[_T]: ...
    def __getitem__(self, index: int | slice) -> _T | list[_T]:
        if isinstance(index, slice):
            return [self._look_up(i) for i in range(self._length)[index]]
        return self._look_up(range(self._length)[index])
