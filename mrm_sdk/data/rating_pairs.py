"""Ratings of a data set as comparisons, by the rule that a client's store follows; imports core and data sets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.core.ratings import rated_pairs
from mrm_sdk.data.columns import QUERY, SUPPORT
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.data.ratings import Ratings
from mrm_sdk.errors import DatasetError


def from_ratings(dataset: Dataset, *, limit: int | None = None, seed: int = 0) -> Dataset:
    """Lets users' ratings take the place of their support comparisons.

    Query comparisons stay, so that both kinds of feedback are judged alike; where the data set has none at all, the
    ratings give them too. A rating whose phase is not stated is support if its item is in none of the user's query
    comparisons; so items that the user never compared are support, too. The latest rating of an item counts; of those
    without a time, the last.

    Args:
        dataset: read with ``ratings=True``.
        limit: most comparisons per user and phase; a sample then weighs as much as all of them would.
        seed: of that sample.

    Returns:
        A data set without ratings, whose support comparisons carry the strengths of
        :func:`~mrm_sdk.core.ratings.rated_pairs`.

    Raises:
        DatasetError: there are no ratings, or no two of them that make a support comparison.
    """
    ratings = dataset.ratings
    if ratings is None or not len(ratings):
        raise DatasetError("This data set has no ratings; it needs a ratings.csv, or rows with rating or thumb.")
    prompts: dict[str | None, int] = {}
    seen = np.unique(ratings.item)
    prompt = np.zeros(len(dataset.items), np.int64)
    prompt[seen] = [prompts.setdefault(dataset.items[int(i)].prompt, len(prompts)) for i in seen]
    phase = _phases(dataset, ratings)
    wanted = (SUPPORT, QUERY) if not len(dataset) else (SUPPORT,)
    rng = np.random.default_rng(seed)

    # The latest rating of each user and item; rows then lie user by user and phase by phase.
    when = np.full(len(ratings), np.inf)  # a client records what has no time as said now
    for row, moment in ratings.created_at.items():
        when[row] = moment.timestamp()
    order = np.lexsort((np.arange(len(ratings)), when, ratings.item, phase, ratings.user))
    key = np.stack([ratings.user, phase, ratings.item])[:, order]
    last = np.append((np.diff(key) != 0).any(0), True)
    order = order[last]
    group = ratings.user[order] * 3 + phase[order] + 1
    starts = np.flatnonzero(np.append(True, np.diff(group) != 0))
    columns: list[tuple[NDArray[np.int64], ...]] = []
    strengths = []
    for rows in np.split(order, starts[1:]):
        if phase[rows[0]] not in wanted:
            continue
        items = ratings.item[rows]
        better, worse, strength = rated_pairs(ratings.value[rows], prompt[items], ratings.strength[rows])
        if limit is not None and len(strength) > limit:
            kept = np.sort(rng.choice(len(strength), limit, replace=False))
            whole = strength.sum()
            better, worse, strength = better[kept], worse[kept], strength[kept]
            strength = strength * whole / strength.sum()
        same = np.ones(len(strength), np.int64)
        columns.append((same * ratings.user[rows[0]], items[better], items[worse], same * phase[rows[0]]))
        strengths.append(strength)
    if not any((given == SUPPORT).any() for *_, given in columns):
        raise DatasetError(
            "These ratings give no support comparison: a user must have rated two responses to one prompt differently, "
            "neither of them stated as query nor in a query comparison of the user. Add ratings, or check their phases."
        )
    kept = np.flatnonzero(dataset.phase == QUERY)
    user, chosen, rejected, phases = (
        np.concatenate([given[kept], *new])
        for given, new in zip(
            (dataset.user, dataset.chosen, dataset.rejected, dataset.phase),
            zip(*columns, strict=True) if columns else [()] * 4,
            strict=True,
        )
    )
    added = len(user) - len(kept)
    return replace(
        dataset,
        user=user,
        chosen=chosen,
        rejected=rejected,
        phase=phases,
        tie=np.append(dataset.tie[kept], np.zeros(added, bool)),
        strength=np.concatenate([dataset.strength[kept], *strengths]),
        event_ids=[f"rated-{row}" for row in range(len(user))],
        created_at=[None] * len(user),
        ratings=None,
    )


def _phases(dataset: Dataset, ratings: Ratings) -> NDArray[np.int64]:
    """The phase of each rating: as stated, or by the user's comparisons of the item; −1 where both phases have it."""
    size = len(dataset.items)
    halves = []
    for phase in (SUPPORT, QUERY):
        rows = dataset.phase == phase
        user = dataset.user[rows]
        pairs = np.concatenate([user * size + dataset.chosen[rows], user * size + dataset.rejected[rows]])
        halves.append(np.isin(ratings.user * size + ratings.item, pairs))
    support, query = halves
    # What no query comparison holds cannot leak into the query, whether it was compared or not.
    derived = np.where(~query, SUPPORT, np.where(~support, QUERY, -1))
    return np.where(ratings.phase >= 0, ratings.phase, derived)
