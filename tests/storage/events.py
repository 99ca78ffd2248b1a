"""Events as the engine would make them, for tests of the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mrm_sdk.schemas.feedback import Comparison
from mrm_sdk.schemas.items import Item
from mrm_sdk.schemas.results import Counted
from mrm_sdk.storage import ComparisonEvent, Outcome, Store, StoredWeights

FEATURES = "f" * 64
FINGERPRINT = "b" * 64


def event(user: str = "ada", chosen: str = "yes", rejected: str = "no", **values: Any) -> ComparisonEvent:
    comparison = Comparison(user_id=user, chosen=chosen, rejected=rejected, **values)
    sides = (Item.of(comparison.prompt, side) for side in (chosen, rejected))
    return ComparisonEvent(comparison, *sides)


def accepted(outcomes: Sequence[Outcome]) -> list[bool]:
    return [outcome.accepted for outcome in outcomes]


def reasons(outcomes: Sequence[Outcome]) -> list[type | None]:
    return [None if outcome.error is None else type(outcome.error) for outcome in outcomes]


COUNTED = Counted(comparisons=1, rating_pairs=2, ratings_alone=3)


def weights(feedback: int | Store, revision: int = 1, *, value: float = 0.5) -> StoredWeights:
    """Weights that have seen a certain state of feedback, or what a store holds of ada's now."""
    if isinstance(feedback, Store):
        feedback, _ = feedback.weights("ada", FINGERPRINT)
    return StoredWeights(np.full(3, value), np.eye(3) * value, 1, feedback, revision, COUNTED)


def add_encoded(store: Store, *events: ComparisonEvent) -> list[Outcome]:
    """Stores events with base rewards for their items, as a client with a bundle does."""
    items = {item.key: item for e in events for item in (e.chosen, e.rejected)}
    rewards = {key: np.full(3, number, np.float32) for number, key in enumerate(items)}
    return store.add(events, features_hash=FEATURES, base_rewards=rewards)
