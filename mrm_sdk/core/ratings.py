"""Ratings of one user as weighted comparisons: with each other, and with the user's own threshold.

Two ratings of one prompt say which response is better, and by how much on the user's own scale. All pairs of n ratings
would count each rating n − 1 times; weighing each pair 2/n, they count as much as n − 1 comparisons together.

A rating also says on which side of a threshold the response lies, above which the user likes what they get: with
probability ``σ(w · φ − b)``. The threshold ``b`` is one more weight, which is adapted with the others and then dropped:
its feature is 1, the responses' is 0, and a rating is a comparison with it. The n ratings of a prompt count as one such
comparison together, so that they count n in all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.core.batching import Pairs

MOST_DISTANCES = 32
"""Up to one more rating than this, a prompt gives all pairs; above, a rating meets at most twice as many others."""
# Of a value that is the mean but for rounding, in standard deviations.
_ROUNDING = 1e-9


class RatedPairs(NamedTuple):
    """Which ratings make comparisons, and how much each counts.

    Args:
        better: index of the higher rating of each pair, [pairs] int64; n, one past the last, is the threshold.
        worse: index of the lower one, [pairs] int64.
        strength: how much the pair counts, [pairs] float64.
    """

    better: NDArray[np.int64]
    worse: NDArray[np.int64]
    strength: NDArray[np.float64]

    @classmethod
    def none(cls) -> RatedPairs:
        """Of no ratings."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def rated_pairs(
    values: NDArray[np.float64],
    prompt: NDArray[np.int64],
    strength: NDArray[np.float64],
    *,
    most_distances: int = MOST_DISTANCES,
) -> RatedPairs:
    """Turns a user's ratings into comparisons; only ratings of the same prompt meet, and equal ones say nothing.

    A pair of a prompt with n ratings counts ``2/n · √(|Δ| / s) · √(strength · strength)``: ``Δ`` is the difference of
    the two values and ``s`` the standard deviation of all values of the user, whatever their prompts, so that the scale
    on which a user rates does not matter. ``export/experiments/choose_ratings.py`` measures the rule against others.

    Where a prompt has more than ``most_distances + 1`` ratings, each meets only those that lie certain numbers of
    ranks away, ``most_distances`` of them and evenly spaced; a pair then counts ``(n − 1) / pairs`` instead of
    ``2/n``, which is the same where all pairs are there. So n ratings make at most ``most_distances · n`` pairs.

    Args:
        values: of each rating, [n] float64, finite.
        prompt: a number for each rating, equal where the prompt is, [n] int64.
        strength: how much each rating counts, [n] float64, above 0.
        most_distances: bounds the pairs of a prompt.

    Returns:
        The comparisons. The order of the ratings does not matter, except that equal values of one prompt keep theirs
        where not all pairs are taken.
    """
    if len(values) < 2:
        return RatedPairs.none()
    # Scaled first: differences of huge values would overflow.
    values = values / max(float(np.abs(values).max()), np.finfo(np.float64).tiny)
    order = np.lexsort((values, prompt))
    _, label, count = np.unique(prompt[order], return_inverse=True, return_counts=True)
    last = (np.cumsum(count) - 1)[label]  # where each rating's prompt ends
    gaps = (count - 1)[label]
    distances = np.minimum(gaps, most_distances)
    position = np.arange(len(order))
    lower, upper = [position[:0]], [position[:0]]
    for number in range(int(distances.max())):
        step = (2 * number + 1) * gaps // (2 * np.maximum(distances, 1)) + 1
        meets = (number < distances) & (position + step <= last)
        lower.append(position[meets])
        upper.append((position + step)[meets])
    low, high = np.concatenate(lower), np.concatenate(upper)
    share = (count - 1) / np.maximum(np.bincount(label[low], minlength=len(count)), 1)
    worse, better = order[low], order[high]
    difference = values[better] - values[worse]
    (unequal,) = np.nonzero(difference > 0)
    low, worse, better, difference = low[unequal], worse[unequal], better[unequal], difference[unequal]
    weight = share[label[low]] * np.sqrt(difference / (values.std() or 1)) * np.sqrt(strength[better] * strength[worse])
    return RatedPairs(better, worse, weight)


def rated_alone(values: NDArray[np.float64], prompt: NDArray[np.int64], strength: NDArray[np.float64]) -> RatedPairs:
    """Compares a user's ratings with the threshold above which the user likes a response.

    Values are thumbs if all of them are 1 or −1, or 0 beside a −1: above or below by their sign, while 0 says nothing.
    Any other values, 0 and 1 too, are a scale: above or below the mean of all the user's values, and a rating counts
    ``√(|value − mean| / s)`` of what a thumb does, with ``s`` as in :func:`rated_pairs`. A single rating or equal ones
    say nothing. Of n ratings of one prompt each counts 1/n, times its strength.
    ``export/experiments/choose_thresholds.py`` measures the rule.

    Args:
        values: of each rating, [n] float64, finite.
        prompt: a number for each rating, equal where the prompt is, [n] int64, from 0 on.
        strength: how much each rating counts, [n] float64, above 0.

    Returns:
        The comparisons; one side of each is n. The order of the ratings does not matter.
    """
    is_thumbs = bool(np.isin(values, (-1, 0, 1)).all()) and (-1 in values or 0 not in values)
    away = values
    if not is_thumbs:
        values = values / max(float(np.abs(values).max()), np.finfo(np.float64).tiny)
        away = (values - values.mean()) / (values.std() or 1)
        away = np.where(np.abs(away) > _ROUNDING, away, 0)
    (rating,) = np.nonzero(away)
    threshold = np.full(len(rating), len(values))
    is_above = away[rating] > 0
    weight = np.sqrt(np.abs(away[rating])) * (strength / np.bincount(prompt)[prompt])[rating]
    return RatedPairs(np.where(is_above, rating, threshold), np.where(is_above, threshold, rating), weight)


def with_threshold(base_rewards: Tensor) -> Tensor:
    """Adds the threshold to responses [n, K], in the row and the column after the last: [n + 1, K + 1]."""
    sides = torch.nn.functional.pad(base_rewards, (0, 1, 0, 1))
    sides[-1, -1] = 1
    return sides


def compare_ratings(
    values: NDArray[np.float64], prompt: NDArray[np.int64], strength: NDArray[np.float64]
) -> RatedPairs:
    """All that a user's ratings say: :func:`rated_pairs`, then :func:`rated_alone`."""
    parts = rated_pairs(values, prompt, strength), rated_alone(values, prompt, strength)
    return RatedPairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def pairs_of(rated: RatedPairs, base_rewards: NDArray[np.float64]) -> Pairs:
    """Compared ratings of one user as the inner loop sees them.

    Args:
        rated: of n ratings.
        base_rewards: of the rated items, [n, K].

    Returns:
        [pairs, K + 1] float64; the last column is the threshold's: 0 where two ratings are compared, else 1 or −1.
        None of them is a tie.
    """
    sides = with_threshold(torch.from_numpy(base_rewards))
    better, worse, weight = map(torch.from_numpy, rated)
    return Pairs(sides[better] - sides[worse], weight, torch.zeros_like(weight))
