"""Ratings and thumbs: how much one user liked one item, as columns."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.errors import InvalidInputError

THUMBS = {True: 1.0, False: -1.0, "up": 1.0, "down": -1.0, "true": 1.0, "false": -1.0}


@dataclass(frozen=True)
class Ratings:
    """Ratings of many users, row by row in the order of the file; users and items are numbered as in the data set.

    Args:
        user: index into ``user_ids`` of each rating, [m].
        item: index into ``items``, [m].
        value: on the users' own scale; a thumb is +1 or −1, [m] float64.
        phase: support (0) or query (1), as given, or split so that they share no item of a user; −1: not known, [m].
        event_ids: those in the file, by row.
        created_at: those in the file, by row.
        strength: how much each counts, above 0 and up to 100; 1 by default, [m] float64.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    value: NDArray[np.float64]
    phase: NDArray[np.int64]
    event_ids: Mapping[int, str] = field(default_factory=dict)
    created_at: Mapping[int, datetime] = field(default_factory=dict)
    strength: NDArray[np.float64] = field(default_factory=lambda: np.ones(1))

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", np.broadcast_to(self.strength, self.user.shape))

    def __len__(self) -> int:
        return len(self.user)


class RatingColumns:
    """Collects ratings."""

    def __init__(self) -> None:
        self.event_ids: dict[int, str] = {}
        self._created_at: dict[int, datetime] = {}
        self._user, self._item, self._phase, self._value = array("q"), array("q"), array("q"), array("d")
        self._strength = array("d")

    def __len__(self) -> int:
        return len(self._user)

    def add(
        self,
        user: int,
        item: int,
        value: float,
        strength: float,
        phase: int,
        event_id: str | None,
        created_at: datetime | None,
    ) -> None:
        """Adds one rating whose parts were checked."""
        if event_id is not None:
            self.event_ids[len(self)] = event_id
        if created_at is not None:
            self._created_at[len(self)] = created_at
        self._user.append(user)
        self._item.append(item)
        self._value.append(value)
        self._strength.append(strength)
        self._phase.append(phase)

    @staticmethod
    def value(row: Mapping[str, Any]) -> float:
        """The value of a row's ``rating`` or ``thumb``.

        Raises:
            InvalidInputError: it has neither, or no finite number, or no thumb.
        """
        if row.get("thumb") is not None:
            thumb = row["thumb"].lower() if isinstance(row["thumb"], str) else row["thumb"]
            if not isinstance(thumb, bool | str) or thumb not in THUMBS:
                raise InvalidInputError(f"thumb must be true, false, 'up' or 'down', not {str(row['thumb'])[:20]!r}")
            return THUMBS[thumb]
        rating = row.get("rating")
        try:
            value = math.nan if rating is None or isinstance(rating, bool) else float(rating)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise InvalidInputError(f"rating must be a finite number, not {str(rating)[:20]!r}")
        return value

    def columns(self) -> Ratings:
        """All ratings so far."""
        return Ratings(
            np.array(self._user, np.int64),
            np.array(self._item, np.int64),
            np.array(self._value, np.float64),
            np.array(self._phase, np.int64),
            self.event_ids,
            self._created_at,
            np.array(self._strength, np.float64),
        )
