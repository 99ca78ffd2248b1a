"""What a user said as the inner loop sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.drift import discounts, rating_discounts
from mrm_sdk.core.ratings import RatedPairs, compare_ratings, pairs_of
from mrm_sdk.core.redundancy import independent_share
from mrm_sdk.schemas.results import Counted
from mrm_sdk.storage.events import StoredRating, UserFeedback


class Evidence(NamedTuple):
    """Comparisons of responses with each other, and of rated ones with the user's threshold.

    Args:
        pairs: [pairs, K], or K + 1 numbers where there are ratings, float64.
        counted: how many of them count, by kind.
    """

    pairs: Pairs
    counted: Counted


def evidence_of(feedback: UserFeedback, base_functions: int, *, half_life: float | None, published: bool) -> Evidence:
    """All that a user said, discounted by age and by repetition.

    Args:
        feedback: with all its features.
        base_functions: K.
        half_life: the age at which a judgement counts half, in seconds.
        published: for the published inner loop, which knows no threshold and no repetition.
    """
    strength, rating_discount = np.array(feedback.strength, np.float64), np.ones(len(feedback.ratings))
    if half_life is not None:
        moments = [*(feedback.created_at or ()), *(rating.created_at for rating in feedback.ratings)]
        discount, rating_discount = np.split(discounts(moments, half_life), [len(strength)])
        strength *= discount
    z = torch.from_numpy(_matrix(feedback.z, base_functions))
    pairs = Pairs(z, torch.from_numpy(strength), torch.from_numpy(np.array(feedback.tie, np.float64)))
    rated = RatedPairs.none()
    if feedback.ratings:
        rated = _compared(feedback.ratings, rating_discount)
        base_rewards = _matrix([rating.base_rewards for rating in feedback.ratings], base_functions)
        pairs = pairs._replace(z=torch.nn.functional.pad(pairs.z, (0, 1)))
        pairs = Pairs(*map(torch.cat, zip(pairs, pairs_of(rated, base_rewards), strict=True)))
    if not published:
        chosen, rejected = _sides(feedback, rated)
        pairs = pairs._replace(
            strength=pairs.strength * torch.from_numpy(independent_share(chosen, rejected, pairs.strength.numpy()))
        )
    alone = np.maximum(rated.better, rated.worse) == len(feedback.ratings)
    return Evidence(
        pairs,
        Counted(
            comparisons=int(np.count_nonzero(strength)),
            rating_pairs=int(np.count_nonzero(rated.strength[~alone])),
            ratings_alone=0 if published else int(np.count_nonzero(rated.strength[alone])),
        ),
    )


def _compared(ratings: Sequence[StoredRating], discount: NDArray[np.float64]) -> RatedPairs:
    numbers = {key: number for number, key in enumerate(dict.fromkeys(rating.prompt for rating in ratings))}
    prompt = np.array([numbers[rating.prompt] for rating in ratings], np.int64)
    strength = np.array([rating.strength for rating in ratings], np.float64) * rating_discounts(discount, prompt)
    return compare_ratings(np.array([rating.value for rating in ratings], np.float64), prompt, strength)


def _sides(feedback: UserFeedback, rated: RatedPairs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A number for each item of each pair; one more stands for the threshold."""
    numbers: dict[bytes, int] = {}
    compared = [[numbers.setdefault(key, len(numbers)) for key in pair] for pair in feedback.items]
    items = [numbers.setdefault(rating.item, len(numbers)) for rating in feedback.ratings]
    of_rating = np.array([*items, len(numbers)], np.int64)
    first, second = np.array(compared, np.int64).reshape(-1, 2).T
    return np.concatenate([first, of_rating[rated.better]]), np.concatenate([second, of_rating[rated.worse]])


def _matrix(vectors: Sequence[NDArray[np.float32] | None], width: int) -> NDArray[np.float64]:
    return np.array(vectors, np.float64).reshape(len(vectors), width)
