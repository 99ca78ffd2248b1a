"""Comparisons that repeat each other: what a user says of few items many times is not as much as it seems.

A user who likes an item a little more than its features say shows it in every comparison of that item, so the
comparisons are not independent. Comparisons among n items, all connected, differ by n − 1 quantities at most (the rank
of a graph's incidence matrix), and count no more than as many.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def independent_share(
    first: NDArray[np.int64], second: NDArray[np.int64], strength: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What the strength of each comparison is multiplied by, so that repetition does not count.

    Comparisons among n connected items, of total strength S, are multiplied by ``min(1, (n − 1) s / S)``, where s is
    the largest of their strengths, but at least 1: one comparison alone always counts in full.

    Args:
        first: a number for one item of each comparison, 0 or more, [m] int64; those of different users differ.
        second: the same of the other item, [m] int64.
        strength: [m], 0 or more.

    Returns:
        [m] float64, in (0, 1].
    """
    share = np.ones(len(first))
    items, ends = np.unique(np.concatenate([first, second]), return_inverse=True)
    if len(items) == 2 * len(first):  # no item comes twice
        return share
    one, other = np.split(ends, 2)
    component = _components(one, other, len(items))
    size, group = np.bincount(component, minlength=len(items)), component[one]
    largest = np.ones(len(items))
    np.maximum.at(largest, group, strength)
    total = np.bincount(group, strength, len(items))
    most = (size - 1) * largest
    return np.minimum(1.0, most[group] / np.maximum(total[group], np.finfo(np.float64).tiny))


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
