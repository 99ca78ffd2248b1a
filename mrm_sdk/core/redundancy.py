"""Comparisons that repeat each other: what a user says of few items in many pairs is not as much as it seems.

A user who likes an item a little more than its features say shows it in every pair with that item, so the pairs are not
independent. Pairs among n items, all connected, differ by n − 1 quantities at most (the rank of a graph's incidence
matrix), and count no more than as many.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A judgement that has faded to this says nothing of which items are connected.
_FADED = 1e-6


def independent_share(
    first: NDArray[np.int64], second: NDArray[np.int64], strength: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What the strength of each comparison is multiplied by, so that repetition does not count.

    Comparisons among n connected items, of total strength S, are multiplied by ``min(1, (n − 1) s / S)``. The strengths
    of the same two items' comparisons add up to that of a pair; s is the mean over pairs, each at least 1. So one pair
    alone counts in full, however often it was compared.

    Args:
        first: a number for one item of each comparison, 0 or more, [m] int64; those of different users differ.
        second: the same of the other item, [m] int64.
        strength: [m], 0 or more.

    Returns:
        [m] float64, in (0, 1].
    """
    share = np.ones(len(first))
    (counted,) = np.nonzero(strength > _FADED)
    strength = strength[counted]
    items, ends = np.unique(np.concatenate([first[counted], second[counted]]), return_inverse=True)
    if len(items) == len(ends):  # no item comes twice
        return share
    count = len(items)
    low, high = np.sort(ends.reshape(2, -1), axis=0)
    pairs, pair = np.unique(low * count + high, return_inverse=True)
    component = _components(low, high, count)
    group = component[pairs // count]
    of_pair = np.bincount(pair, strength)
    total, together = np.bincount(group, of_pair, count), np.bincount(group, np.maximum(of_pair, 1), count)
    mean = together / np.maximum(np.bincount(group, minlength=count), 1)
    most = (np.bincount(component, minlength=count) - 1) * mean
    by_group = np.minimum(1.0, most / np.maximum(total, np.finfo(np.float64).tiny))
    share[counted] = by_group[group][pair]
    return share


def _components(one: NDArray[np.int64], other: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The smallest item that each of ``count`` items is connected to."""
    label = np.arange(count)
    while True:
        least = np.minimum(label[one], label[other])
        before = label.copy()
        np.minimum.at(label, one, least)
        np.minimum.at(label, other, least)
        label = label[label]
        if np.array_equal(label, before):
            return label
