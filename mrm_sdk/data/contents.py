"""What a data set's rows say, as columns of numbers: event ids and phases are derived from it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

SUPPORT, QUERY = 0, 1


class EventIds(Sequence[str]):
    """Unique ids of events, n of them: as stated, else made when asked for from what was judged and how.

    A row that repeats an earlier one's content is another event: ids end in the number of the repetition.

    Args:
        stated: the file's ids by row.
        contents: what derived ids are made from.
    """

    def __init__(self, stated: Mapping[int, str], contents: Contents) -> None:
        self._stated, self._contents = stated, contents
        columns = (contents.user, contents.chosen, contents.rejected, contents.tie, contents.strength)
        self._repeats = _repeats(columns, np.fromiter(stated, np.int64, len(stated)))

    def __len__(self) -> int:
        return len(self._contents.user)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        stated = self._stated.get(index)
        return f"{self._contents.hash(index)}-{self._repeats[index]}" if stated is None else stated

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(ours == theirs for ours, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as that of lists: equality is by content

    def repeated(self, stated: Collection[str]) -> str | None:
        """A derived id that is also among those that were stated, if there is one."""
        derived = (self[row] for row in range(len(self)) if row not in self._stated) if stated else ()
        return next((name for name in derived if name in stated), None)


class Contents(NamedTuple):
    """What rows say, as columns of n rows; users and items by number."""

    user_ids: list[str]
    keys: Sequence[bytes]
    user: NDArray[np.int64]
    chosen: NDArray[np.int64]
    rejected: NDArray[np.int64]
    tie: NDArray[np.bool_]
    strength: NDArray[np.float64]
    phase: NDArray[np.int64]
    group: NDArray[np.uint64]

    def hash(self, row: int) -> str:
        """Of one row's content, 40 hexadecimal digits."""
        chosen, rejected = self.keys[self.chosen[row]].hex(), self.keys[self.rejected[row]].hex()
        judged = [self.user_ids[self.user[row]], chosen, rejected, bool(self.tie[row]), float(self.strength[row])]
        return hashlib.sha256(repr(judged).encode()).hexdigest()[:40]


def halve(contents: Contents, event_ids: Sequence[str]) -> NDArray[np.int64]:
    """Phases [n]: rows without one get one; half of each user's rows, or groups of rows, are support.

    A hash of the ids decides which half, so neither the order of rows nor another user's matters.
    """
    (rows,) = np.nonzero(contents.phase < 0)
    if not len(rows):
        return contents.phase
    hashes = contents.group[rows]
    for i in np.flatnonzero(hashes == 0):
        hashes[i] = short_hash(event_ids[rows[i]])
    phase = contents.phase.copy()
    phase[rows] = halve_by_hash(contents.user[rows], hashes)
    return phase


def halve_by_hash(user: NDArray[np.int64], hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Phases [n] that put half of each user's distinct hashes into support, in the order of the hashes."""
    order = np.lexsort((hashes, user))
    users, units = user[order], hashes[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (users[1:] != users[:-1]) | (units[1:] != units[:-1])
    _, start, count = np.unique(users[new], return_index=True, return_counts=True)
    rank = np.arange(int(new.sum())) - np.repeat(start, count)
    halves = np.where(rank < np.repeat(count // 2, count), SUPPORT, QUERY)
    phase = np.empty(len(order), np.int64)
    phase[order] = halves[np.cumsum(new) - 1]
    return phase


def short_hash(text: str) -> int:
    """Of a text, 64 bits."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def _repeats(columns: tuple[NDArray[Any], ...], stated: NDArray[np.int64]) -> NDArray[np.int32]:
    """How often each row's content has come so far, itself included; rows with an id of their own are left out."""
    out = np.zeros(len(columns[0]), np.int32)
    rows = np.setdiff1d(np.arange(len(out)), stated, assume_unique=True) if len(stated) else np.arange(len(out))
    if not len(rows):
        return out
    sorted_ = [column[rows] for column in columns]
    order = np.lexsort((rows, *sorted_))
    first = np.ones(len(rows), np.bool_)
    first[1:] = np.any([column[order][1:] != column[order][:-1] for column in sorted_], axis=0)
    starts = np.flatnonzero(first)
    out[rows[order]] = np.arange(len(rows)) - np.repeat(starts, np.diff([*starts, len(rows)])) + 1
    return out
