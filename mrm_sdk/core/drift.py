"""Tastes change: how much an old judgement still counts.

Age is measured back from the user's newest judgement, not from the clock: weights stay a function of the events alone,
so they are the same in every replica and nothing has to be adapted again because time has passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray


def discounts(moments: Sequence[datetime], half_life: float | None) -> NDArray[np.float64]:
    """What the strength of each of a user's judgements is multiplied by: ``½ ** (age / half_life)``.

    Args:
        moments: when each judgement was made, all of them aware or none.
        half_life: the age at which a judgement counts half, in seconds, above 0; ``None``: all count in full.

    Returns:
        [n] float64 in [0, 1], exactly 1 for the newest.
    """
    if half_life is None or not moments:
        return np.ones(len(moments))
    newest = max(moments)
    return np.exp2([-((newest - moment).total_seconds() / half_life) for moment in moments])


def rating_discounts(discount: NDArray[np.float64], prompt: NDArray[np.int64]) -> NDArray[np.float64]:
    """What the strength of each rating is multiplied by, so that old ratings of a prompt do not dilute new ones.

    A pair of n ratings counts 2/n (:mod:`mrm_sdk.core.ratings`), however old the n are. Here ``(Σ√d)² / Σd`` takes the
    place of n, over the discounts d of the prompt's ratings: it is n where all are of one age, and the number of new
    ones where the others are very old. A pair then counts by the geometric mean of its two discounts, and a prompt's
    n ratings together as ``Σd (1 − 1/n)`` comparisons, with that n.

    Args:
        discount: of each rating, by its age, [n] float64.
        prompt: a number for each rating, equal where the prompt is, [n] int64, from 0 on.

    Returns:
        [n] float64; exactly 1 where every discount is.
    """
    count, total, root = (np.bincount(prompt, weight) for weight in (None, discount, np.sqrt(discount)))
    effective = root**2 / np.maximum(total, np.finfo(np.float64).tiny)
    share = np.divide(count, effective, out=np.zeros_like(effective), where=effective > 0)
    result: NDArray[np.float64] = discount * share[prompt]
    return result
