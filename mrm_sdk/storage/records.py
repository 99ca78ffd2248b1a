"""What goes into the store and comes out of it; vectors are numpy arrays. Imports schemas and numpy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.errors import ConflictError, MrmError, UserForgottenError
from mrm_sdk.schemas import Comparison, Item


@dataclass(frozen=True, eq=False)
class Event:
    """A comparison with its two items, ready to be stored; ``z`` is [K] float32 where it is known."""

    comparison: Comparison
    chosen: Item
    rejected: Item
    z: NDArray[np.float32] | None = None

    @cached_property
    def content(self) -> bytes:
        """SHA-256 over what was judged, not when: a retry is the same event."""
        comparison = self.comparison
        sides = [self.chosen.key, self.rejected.key]
        digest = hashlib.sha256(b"".join(sorted(sides) if comparison.tie else sides))  # a tie has no order
        digest.update(repr((comparison.user_id, comparison.tie, comparison.strength)).encode())
        return digest.digest()


class Outcome(NamedTuple):
    """What became of one event: stored, there already, or refused with an error."""

    accepted: bool
    error: MrmError | None = None


@dataclass(frozen=True)
class StoredWeights:
    """A user's weights as stored; ``feedback`` tells which state of the user's feedback they have seen."""

    weights: NDArray[np.float64]
    covariance: NDArray[np.float64] | None
    comparisons: int
    feedback: int
    revision: int


@dataclass(frozen=True)
class UserFeedback:
    """All comparisons of a user in the order of their event ids; ``z[i]`` is ``None`` where it was never computed."""

    feedback: int
    event_ids: list[str]
    items: list[tuple[bytes, bytes]]
    z: list[NDArray[np.float32] | None]
    strength: list[float]
    tie: list[bool]


def conflict(event_id: str) -> ConflictError:
    """The error of an event id that comes again with other content."""
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
