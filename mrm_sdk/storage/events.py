"""Events that go into the store, and what comes out of it; vectors are numpy arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import combinations
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.errors import ConflictError, EventExpiredError, MrmError, UserForgottenError
from mrm_sdk.schemas.feedback import Comparison, Feedback, Ranking, Rating, Thumb, part_id
from mrm_sdk.schemas.items import Item, Prompt, Response
from mrm_sdk.schemas.results import Counted


@dataclass(frozen=True, eq=False, slots=True)
class ComparisonEvent:
    """A comparison with its two items, ready to be stored; ``content`` is a hash of what was judged, not when."""

    source: Comparison
    chosen: Item
    rejected: Item
    content: bytes = field(init=False)

    def __post_init__(self) -> None:
        comparison = self.source
        sides = [self.chosen.key, self.rejected.key]
        digest = hashlib.sha256(b"".join(sorted(sides) if comparison.tie else sides))  # a tie has no order
        digest.update(repr((comparison.user_id, comparison.tie, comparison.strength)).encode())
        object.__setattr__(self, "content", digest.digest())

    @property
    def items(self) -> tuple[Item, ...]:
        """The items to encode."""
        return self.chosen, self.rejected

    @property
    def contents(self) -> dict[str, bytes | None]:
        """Content hashes by event id: of a duplicate all are stored, and ids with ``None`` are absent."""
        return {self.source.event_id: self.content}


@dataclass(frozen=True, eq=False)
class RatingEvent:
    """A rating with its item, ready to be stored."""

    source: Rating
    item: Item

    @property
    def items(self) -> tuple[Item, ...]:
        """The item to encode."""
        return (self.item,)

    @property
    def contents(self) -> dict[str, bytes | None]:
        """Content hash by event id."""
        return {self.source.event_id: self.content}

    @cached_property
    def content(self) -> bytes:
        """SHA-256 over what was rated, and how."""
        rating = self.source
        judged = (rating.user_id, rating.value, rating.strength)
        return hashlib.sha256(b"rating" + self.item.key + repr(judged).encode()).digest()


@dataclass(frozen=True, eq=False)
class RankingEvent:
    """A ranking as its comparisons, which are stored all together or not at all."""

    source: Ranking
    parts: tuple[ComparisonEvent, ...]

    @property
    def items(self) -> tuple[Item, ...]:
        """The items to encode, best first."""
        return self.parts[0].chosen, *(part.rejected for part in self.parts[: len(self.source.responses) - 1])

    @property
    def contents(self) -> dict[str, bytes | None]:
        """Content hashes by event id; a longer ranking with the same id would have stored one part more."""
        beyond = part_id(self.source.event_id, len(self.parts))
        return {part.source.event_id: part.content for part in self.parts} | {beyond: None}


AnyEvent: TypeAlias = ComparisonEvent | RatingEvent | RankingEvent


ItemOf: TypeAlias = Callable[[Prompt, str | Response], Item]


def event_of(feedback: Feedback, item_of: ItemOf = Item.of) -> AnyEvent:
    """Builds the event of a host's feedback.

    Args:
        feedback: the host's.
        item_of: returns the item of a prompt and a response.

    Raises:
        InvalidInputError: the strength of a ranking is too small to be divided among its comparisons.
    """
    if isinstance(feedback, Thumb):
        feedback = feedback.as_rating()
    if isinstance(feedback, Rating):
        return RatingEvent(feedback, item_of(feedback.prompt, feedback.response))
    if isinstance(feedback, Ranking):
        items = [item_of(feedback.prompt, response) for response in feedback.responses]
        parts = zip(feedback.comparisons(), combinations(items, 2), strict=True)
        return RankingEvent(feedback, tuple(ComparisonEvent(comparison, *sides) for comparison, sides in parts))
    return ComparisonEvent(
        feedback, item_of(feedback.prompt, feedback.chosen), item_of(feedback.prompt, feedback.rejected)
    )


class Outcome(NamedTuple):
    """What became of one event: stored, there already, or refused with an error."""

    accepted: bool
    error: MrmError | None = None


ACCEPTED = Outcome(True)


@dataclass(frozen=True)
class StoredWeights:
    """A user's weights as stored.

    Args:
        weights: [K].
        covariance: [K, K].
        comparisons: how many comparisons and ratings they were adapted to.
        feedback_version: of the feedback that they were adapted to; :data:`OUTDATED` if by a version of this package
            that had no thresholds.
        revision: how often they were stored.
        counted: which judgements moved them.
    """

    weights: NDArray[np.float64]
    covariance: NDArray[np.float64] | None
    comparisons: int
    feedback_version: int
    revision: int
    counted: Counted


OUTDATED = -1
"""No feedback has this version, so weights of it are never current."""
NOTHING_COUNTED = Counted(comparisons=0, rating_pairs=0, ratings_alone=0)


def counted(comparisons: int | None, rating_pairs: int | None, ratings_alone: int | None) -> Counted | None:
    """What moved weights, from its columns; ``None`` of weights that an earlier version stored."""
    if comparisons is None or rating_pairs is None or ratings_alone is None:
        return None
    return Counted(comparisons=comparisons, rating_pairs=rating_pairs, ratings_alone=ratings_alone)


class StoredRating(NamedTuple):
    """A rating as stored; ``base_rewards`` is ``None`` until it is computed."""

    event_id: str
    item: bytes
    prompt: bytes
    value: float
    strength: float
    created_at: datetime
    base_rewards: NDArray[np.float32] | None


@dataclass(frozen=True)
class UserFeedback:
    """All feedback of a user.

    Comparisons are in order of event ids; ``z[i]`` is ``None`` until it is computed, and ``created_at`` is ``None``
    unless the caller asked for it. Ratings are in order of items; of several ratings of an item only the newest is
    here, by time, then by event id.

    Args:
        feedback_version: changes with each change of the user's feedback; 0: unknown user.
        event_ids: of comparisons, as the five fields that follow.
        items: keys of chosen and rejected item.
        z: feature differences, each [K] float32.
        strength: how much each counts.
        tie: whether both are as good.
        created_at: when each was made.
        ratings: the newest rating of each item.
    """

    feedback_version: int
    event_ids: list[str]
    items: list[tuple[bytes, bytes]]
    z: list[NDArray[np.float32] | None]
    strength: list[float]
    tie: list[bool]
    created_at: list[datetime] | None
    ratings: list[StoredRating]

    @property
    def unencoded(self) -> dict[str, Sequence[bytes]]:
        """Of comparisons and ratings without features, the keys of their items, by event id."""
        compared = zip(self.event_ids, self.items, self.z, strict=True)
        without: dict[str, Sequence[bytes]] = {event_id: items for event_id, items, z in compared if z is None}
        return without | {rating.event_id: (rating.item,) for rating in self.ratings if rating.base_rewards is None}

    def encoded(self) -> UserFeedback:
        """The part of it that has features."""
        rows = [row for row, z in enumerate(self.z) if z is not None]
        return UserFeedback(
            feedback_version=self.feedback_version,
            event_ids=[self.event_ids[row] for row in rows],
            items=[self.items[row] for row in rows],
            z=[self.z[row] for row in rows],
            strength=[self.strength[row] for row in rows],
            tie=[self.tie[row] for row in rows],
            created_at=None if self.created_at is None else [self.created_at[row] for row in rows],
            ratings=[rating for rating in self.ratings if rating.base_rewards is not None],
        )


NO_FEEDBACK = UserFeedback(0, [], [], [], [], [], None, [])


def conflict(event_id: str) -> ConflictError:
    """The error of an event id that was recorded before with other content."""
    return ConflictError(
        f"Event {event_id!r} was recorded before with other content. Events never change: "
        "record a new one, with a new event_id."
    )


def stale(forgotten_at: datetime) -> UserForgottenError:
    """The error of an event that is older than its user's deletion."""
    return UserForgottenError(
        f"The user was forgotten at {forgotten_at.isoformat()}, after this event; it stays deleted. "
        "New feedback carries a later created_at."
    )


def expired(pruned_before: datetime) -> EventExpiredError:
    """The error of an event that is older than what its tenant keeps."""
    return EventExpiredError(
        f"Feedback from before {pruned_before.isoformat()} was pruned and stays deleted. "
        "New feedback carries a later created_at."
    )
