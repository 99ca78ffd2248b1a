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


def text_folds(
    dataset: Dataset, rows: NDArray[np.int64], folds: int, rng: np.random.Generator
) -> list[NDArray[np.bool_]]:
    """Which items each fold holds back, [items] bool.

    All answers to a prompt together, where comparisons are of answers to one prompt: what a host scores next is an
    answer to a prompt that is new as well.

    Args:
        dataset: its items.
        rows: the comparisons that a fit may see.
        folds: how many, disjoint.
        rng: draws them.
    """
    chosen, rejected = dataset.chosen[rows], dataset.rejected[rows]
    items = np.unique(np.concatenate([chosen, rejected]))
    numbers: dict[str | None, int] = {}
    prompt = np.array([numbers.setdefault(dataset.items[i].prompt, len(numbers)) for i in items.tolist()])
    group = np.arange(len(items))
    within = prompt[np.searchsorted(items, chosen)] == prompt[np.searchsorted(items, rejected)]
    if len(numbers) >= _LEAST_PROMPTS and within.mean() > 0.5:
        group = prompt
    groups = np.unique(group)
    drawn = rng.permutation(len(groups))
    size = max(1, round(min(_SHARE, 1 / folds) * len(groups))) if folds > 1 else max(1, round(_SHARE * len(groups)))
    held_back = []
    for fold in range(folds):
        new = np.zeros(len(dataset.items), np.bool_)
        new[items[np.isin(group, groups[drawn[fold * size : (fold + 1) * size]])]] = True
        held_back.append(new)
    return held_back


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
