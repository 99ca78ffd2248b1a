"""Ratings of a data set as comparisons, by the rule that a client follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.core.ratings import rated_alone, rated_pairs
from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.data.ratings import Ratings
from mrm_sdk.errors import DatasetError


def from_ratings(dataset: Dataset, *, limit: int | None = None, alone: bool = False, seed: int = 0) -> Dataset:
    """Replaces users' support comparisons by those that their ratings make.

    Query comparisons stay, so that both kinds of feedback are judged the same way; if the data set has no comparisons,
    the ratings give query comparisons too. A rating without a phase is support if its item is in none of the user's
    query comparisons. Only the newest rating of an item counts; of those without a time, the last.

    Args:
        dataset: read with ``ratings=True``.
        limit: most comparisons per user and phase; a sample of them has the same total weight.
        alone: also compare each support rating with the user's threshold, after all pairs, as a client does
            (:func:`~mrm_sdk.core.ratings.rated_alone`). The threshold is the item after the last, number
            ``len(dataset.items)``, which only :func:`mrm_sdk.evaluation.evaluate` knows.
        seed: of that sample.

    Returns:
        A data set without ratings, whose support comparisons carry the strengths of
        :func:`~mrm_sdk.core.ratings.rated_pairs`.

    Raises:
        DatasetError: there are no ratings, or none that make a support comparison.
    """
    ratings = dataset.ratings
    if ratings is None or not len(ratings):
        raise DatasetError("This data set has no ratings; it needs a ratings.csv, or rows with rating or thumb.")
    phase = _phases(dataset, ratings)
    used_phases = (SUPPORT, QUERY) if not len(dataset) else (SUPPORT,)
    prompt, rng = _prompts(dataset, ratings), np.random.default_rng(seed)
    parts = [
        _compare(ratings, rows, prompt, limit, rng, phase=int(phase[rows[0]]), alone=alone)
        for rows in _newest_by_user_and_phase(ratings, phase)
        if phase[rows[0]] in used_phases
    ]
    if not any((part.phase == SUPPORT).any() for part in parts):
        raise DatasetError(
            "These ratings give no support comparison: a user must have rated two responses to one prompt differently, "
            "neither of them stated as query nor in a query comparison of the user. Add ratings, or check their phases."
        )
    query = np.flatnonzero(dataset.phase == QUERY)

    def column(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(dataset, name)[query], *(getattr(part, name) for part in parts)])

    user = column("user")
    return replace(
        dataset,
        user=user,
        chosen=column("chosen"),
        rejected=column("rejected"),
        phase=column("phase"),
        tie=np.append(dataset.tie[query], np.zeros(len(user) - len(query), bool)),
        strength=column("strength"),
        event_ids=[f"rated-{row}" for row in range(len(user))],
        created_at=[None] * len(user),
        ratings=None,
    )


class _Comparisons(NamedTuple):
    """Comparisons that ratings of one user and phase make, one column per field."""

    user: NDArray[np.int64]
    chosen: NDArray[np.int64]
    rejected: NDArray[np.int64]
    phase: NDArray[np.int64]
    strength: NDArray[np.float64]


def _prompts(dataset: Dataset, ratings: Ratings) -> NDArray[np.int64]:
    """A number for the prompt of each rated item, equal if the prompts are, [items]."""
    numbers: dict[str | None, int] = {}
    rated = np.unique(ratings.item)
    prompt = np.zeros(len(dataset.items), np.int64)
    prompt[rated] = [numbers.setdefault(dataset.items[int(i)].prompt, len(numbers)) for i in rated]
    return prompt


def _newest_by_user_and_phase(ratings: Ratings, phase: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows of the newest rating of each user, phase and item, in groups of one user and phase."""
    when = np.full(len(ratings), np.inf)  # a client records a rating without a time as made now
    for row, moment in ratings.created_at.items():
        when[row] = moment.timestamp()
    order = np.lexsort((np.arange(len(ratings)), when, ratings.item, phase, ratings.user))
    key = np.stack([ratings.user, phase, ratings.item])[:, order]
    order = order[np.append((np.diff(key) != 0).any(0), True)]
    group = ratings.user[order] * 3 + phase[order] + 1
    return np.split(order, np.flatnonzero(np.diff(group) != 0) + 1)


def _compare(
    ratings: Ratings,
    rows: NDArray[np.int64],
    prompt: NDArray[np.int64],
    limit: int | None,
    rng: np.random.Generator,
    *,
    phase: int,
    alone: bool,
) -> _Comparisons:
    """The comparisons of one user's ratings in one phase; of more than ``limit`` a sample of the same total weight."""
    items = ratings.item[rows]
    rated = ratings.value[rows], prompt[items], ratings.strength[rows]
    better, worse, strength = rated_pairs(*rated)
    if alone and phase == SUPPORT:
        with_threshold = zip((better, worse, strength), rated_alone(*rated), strict=True)
        better, worse, strength = (np.concatenate(columns) for columns in with_threshold)
        items = np.append(items, len(prompt))
    if limit is not None and len(strength) > limit:
        sample = np.sort(rng.choice(len(strength), limit, replace=False))
        total = strength.sum()
        better, worse, strength = better[sample], worse[sample], strength[sample]
        strength = strength * total / strength.sum()
    same = np.ones(len(strength), np.int64)
    return _Comparisons(same * ratings.user[rows[0]], items[better], items[worse], same * phase, strength)


def _phases(dataset: Dataset, ratings: Ratings) -> NDArray[np.int64]:
    """The phase of each rating: the stated one, or by the user's comparisons of the item; −1 if both phases have it."""
    size = len(dataset.items)
    halves = []
    for phase in (SUPPORT, QUERY):
        rows = dataset.phase == phase
        user = dataset.user[rows]
        pairs = np.concatenate([user * size + dataset.chosen[rows], user * size + dataset.rejected[rows]])
        halves.append(np.isin(ratings.user * size + ratings.item, pairs))
    support, query = halves
    # An item in no query comparison cannot leak into the query, whether it was compared or not.
    derived = np.where(~query, SUPPORT, np.where(~support, QUERY, -1))
    return np.where(ratings.phase >= 0, ratings.phase, derived)
