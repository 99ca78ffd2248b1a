"""Texts that a fit knows, and texts that it does not: a host has both, answers from a catalogue and new ones."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.data.contents import QUERY
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.training.empirical_bayes import LEAST_COMPARISONS
from mrm_sdk.training.episodes import Packed

_LEAST_PROMPTS = 5
_MOST_KNOWN, _MOST_NUMBERS = 4096, 2**21
_SHARE = 0.25
# What few texts say of a fit depends on which ones: then more of them are held back in turn.
_FEW, _MOST_DRAWS = 400, 4


def text_groups(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """What is held back together: a number for each item, [items]; −1 for items of no comparison.

    All answers to a prompt, where comparisons are of answers to one prompt: what a host scores next is an answer to a
    prompt that is new as well. Else each item by itself.

    Args:
        dataset: its items.
        rows: the comparisons that a fit may see.
    """
    chosen, rejected = dataset.chosen[rows], dataset.rejected[rows]
    items = np.unique(np.concatenate([chosen, rejected]))
    numbers: dict[str | None, int] = {}
    prompt = np.array([numbers.setdefault(dataset.items[i].prompt, len(numbers)) for i in items.tolist()])
    group = np.arange(len(items))
    within = prompt[np.searchsorted(items, chosen)] == prompt[np.searchsorted(items, rejected)]
    if len(numbers) >= _LEAST_PROMPTS and within.mean() > 0.5:
        group = prompt
    of_item = np.full(len(dataset.items), -1)
    of_item[items] = group
    return of_item


def text_folds(groups: NDArray[np.int64], folds: int, rng: np.random.Generator) -> list[NDArray[np.bool_]]:
    """Which items each fold holds back, [items] bool: whole groups, a quarter of them or less.

    Args:
        groups: see :func:`text_groups`.
        folds: how many, disjoint.
        rng: draws them.
    """
    distinct = np.unique(groups[groups >= 0])
    drawn = rng.permutation(distinct)
    size = max(1, round(min(_SHARE, 1 / folds) * len(distinct)))
    return [np.isin(groups, drawn[fold * size : (fold + 1) * size]) for fold in range(folds)]


def draws_of(groups: NDArray[np.int64]) -> int:
    """How many times texts should be held back, to be judged by: more where there are few."""
    return min(_MOST_DRAWS, max(1, _FEW // len(np.unique(groups[groups >= 0]))))


def without(users: Packed, new: Tensor) -> Packed:
    """The comparisons of known texts alone; others become padding."""
    return users._replace(strength=users.strength * (~new[users.items].any(-1)))


def judged_on(users: Packed, new: Tensor) -> Packed:
    """Those who have query comparisons of new texts alone, judged by these; all of their support stays."""
    kept = torch.ones_like(users.strength, dtype=torch.bool)
    kept[:, QUERY] = new[users.items[:, QUERY]].all(-1)
    users = users._replace(strength=users.strength * kept)
    return users.users((users.strength > 0).any(-1).all(-1))


def judged_often(users: Packed, embeddings: tuple[int, ...]) -> Tensor:
    """The items that a bundle is to know again, ascending: those of most comparisons, as many as are worth their space.

    Args:
        users: all of them.
        embeddings: the shape [items, D] of what each takes.
    """
    items, dimension = embeddings
    counts = torch.bincount(users.items[users.strength > 0].flatten().cpu(), minlength=items)
    most = min(items, _MOST_KNOWN, max(1, _MOST_NUMBERS // dimension))
    often = torch.argsort(counts, descending=True, stable=True)[:most]
    return often[counts[often] >= LEAST_COMPARISONS].sort().values
