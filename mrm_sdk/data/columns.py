"""From rows to columns: every row is checked, items and users become numbers."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain, combinations
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.data.ids import id_text, user_id_text
from mrm_sdk.data.items import Catalogue, is_plain
from mrm_sdk.data.ratings import RatingColumns
from mrm_sdk.errors import InvalidInputError
from mrm_sdk.schemas.feedback import MOST_RANKED, Comparison, Ranking, Rating, part_id
from mrm_sdk.schemas.frozen import MAX_ID_LENGTH, identifier
from mrm_sdk.schemas.items import Item, Response

SUPPORT, QUERY = 0, 1
_PHASES = {"support": SUPPORT, "query": QUERY}
_REMEMBERED = 4096


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

    __hash__ = None  # type: ignore[assignment]

    def repeated(self, others: Collection[str]) -> str | None:
        """An id that two rows have, or that appears among others too, if there is one; derived ones are unique."""
        if not self._stated and not others:
            return None
        seen: set[str] = set()
        return next((name for name in chain(self, others) if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


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


class Columns:
    """Collects rows; without mapped embeddings items are told apart by content, whatever the file calls them.

    Args:
        catalogue: the items that rows name by id; an empty one where rows hold texts.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.users: dict[str, int] = {}
        self.created_at: dict[int, datetime] = {}
        self.ratings = RatingColumns()
        self._catalogue = catalogue
        self._items: list[Item] = []
        self._by_content: dict[bytes, int] = {}
        self._numbers = array("q", [-1]) * len(catalogue.index)
        self._stated: dict[int, str] = {}
        self._user, self._chosen, self._rejected, self._phase = (array("q") for _ in range(4))
        self._tie, self._strength, self._group = array("b"), array("d"), array("Q")
        self._remembered: dict[tuple[object, ...], tuple[bool, float]] = {}

    def __len__(self) -> int:
        return len(self._user)

    @property
    def items(self) -> Sequence[Item]:
        """The items that rows' numbers mean."""
        return self._items if self._catalogue.embeddings is None else self._catalogue.items

    @property
    def embeddings(self) -> NDArray[Any] | None:
        """Of the items, mapped from a file; ``None`` where items bring their own, or have none."""
        return self._catalogue.embeddings

    @property
    def keys(self) -> Sequence[bytes]:
        """What tells the items apart, 32 bytes each."""
        return list(self._by_content) if self._catalogue.embeddings is None else self._catalogue.keys

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds one row: a comparison, a ranking, a rating or a thumb.

        Raises:
            InvalidInputError: a value is missing or wrong.
        """
        if "chosen" in row or "rejected" in row:
            self._add_comparison(row)
        elif "ranking" in row:
            for pair in _pairs(row):
                self._add_comparison(pair)
        elif "rating" in row or "thumb" in row:
            self.add_rating(row)
        else:
            self._add_comparison(row)  # says what is missing

    def add_rating(self, row: Mapping[str, Any]) -> None:
        """Adds one rating or thumb; its item is named by ``item_id``, or told by ``prompt`` and ``response``.

        Raises:
            InvalidInputError: a value is missing or wrong.
        """
        value = self.ratings.value(row)
        user_id = identifier("user_id", user_id_text(row.get("user_id")))
        field = "item_id" if self._catalogue.index else "response"
        if field not in row:
            raise InvalidInputError(f"{field!r} missing; found: {_column_names(row)}")
        if self._catalogue.index:
            item = self._named(row, field)
        else:
            item = self._number(Item.of(row.get("prompt"), row["response"]))
        event_id = (
            identifier("event_id", id_text("event_id", row["event_id"])) if row.get("event_id") is not None else None
        )
        when, strength = None, 1.0
        extras = {key: row[key] for key in ("created_at", "strength") if row.get(key) is not None}
        if extras:
            checked = Rating(user_id=user_id, response="", value=value, **extras)
            when, strength = checked.created_at if "created_at" in extras else None, checked.strength
        user = self.users.setdefault(user_id, len(self.users))
        self.ratings.add(user, item, value, strength, _phase(row), event_id, when)

    def contents(self) -> Contents:
        """All rows so far; phases that were not stated are −1, groups that were not are 0."""
        return Contents(
            list(self.users),
            self.keys,
            np.array(self._user, np.int64),
            np.array(self._chosen, np.int64),
            np.array(self._rejected, np.int64),
            np.array(self._tie, np.bool_),
            np.array(self._strength, np.float64),
            np.array(self._phase, np.int64),
            np.array(self._group, np.uint64),
        )

    def event_ids(self, contents: Contents) -> EventIds:
        """The rows' ids."""
        return EventIds(self._stated, contents)

    def _add_comparison(self, row: Mapping[str, Any]) -> None:
        missing = {"user_id", "chosen", "rejected"} - row.keys()
        if missing:
            raise InvalidInputError(f"{', '.join(map(repr, sorted(missing)))} missing; found: {_column_names(row)}")
        phase = _phase(row)
        ids = {"user_id": user_id_text(row["user_id"])}
        if row.get("event_id") is not None:
            ids["event_id"] = id_text("event_id", row["event_id"])
        user_id, event_id, when = ids["user_id"], ids.get("event_id"), None
        texts = {} if self._catalogue.index else {key: row.get(key) for key in ("prompt", "chosen", "rejected")}
        extras = self._recall(row)
        # Most rows repeat what was checked before: a known user, usual extras, plain texts.
        if (
            extras is not None
            and user_id in self.users
            and (event_id is None or (0 < len(event_id) <= MAX_ID_LENGTH and is_plain(event_id)))
            and all(is_plain(text) or (text is None and key == "prompt") for key, text in texts.items())
        ):
            tie, strength = extras
            prompt, chosen, rejected = (texts.get(key) for key in ("prompt", "chosen", "rejected"))
        else:
            values = {key: row[key] for key in ("tie", "strength", "created_at") if row.get(key) is not None} | ids
            checked = Comparison(**{"event_id": "-", **values, **(texts or {"chosen": "a", "rejected": "b"})})
            tie, strength, user_id = checked.tie, checked.strength, checked.user_id
            prompt, chosen, rejected = checked.prompt, checked.chosen, checked.rejected
            when = checked.created_at if "created_at" in values else None
            self._remember(row, (tie, strength))
        if self._catalogue.index:
            pair = self._named(row, "chosen"), self._named(row, "rejected")
        else:
            pair = self._number(_item(prompt, chosen)), self._number(_item(prompt, rejected))
        if pair[0] == pair[1]:
            raise InvalidInputError("chosen and rejected are the same response, so nothing is compared")
        number = len(self)
        if event_id is not None:
            self._stated[number] = event_id
        if when is not None:
            self.created_at[number] = when
        self._user.append(self.users.setdefault(str(user_id), len(self.users)))
        self._chosen.append(pair[0])
        self._rejected.append(pair[1])
        self._tie.append(tie)
        self._strength.append(strength)
        self._phase.append(phase)
        self._group.append(0 if row.get("group") is None else short_hash(str(row["group"])))

    def _recall(self, row: Mapping[str, Any]) -> tuple[bool, float] | None:
        """Tie and strength as they were checked before, if they were."""
        extras = _extras(row)
        return None if extras is None else self._remembered.get(extras)

    def _remember(self, row: Mapping[str, Any], checked: tuple[bool, float]) -> None:
        extras = _extras(row)
        if extras is not None and len(self._remembered) < _REMEMBERED:
            self._remembered[extras] = checked

    def _named(self, row: Mapping[str, Any], field: str) -> int:
        name = id_text(field, row[field])
        index = self._catalogue.index.get(name)
        if index is None:
            raise InvalidInputError(f"{field}: unknown item id {name[:40]!r}, which the items file lacks")
        if self._catalogue.embeddings is not None:
            return index
        if self._numbers[index] < 0:
            self._numbers[index] = self._number(self._catalogue.items[index])
        return self._numbers[index]

    def _number(self, item: Item) -> int:
        number = self._by_content.setdefault(item.key, len(self._items))
        if number == len(self._items):
            self._items.append(item)
        return number


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


def _pairs(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All pairs of a ranking; a ranking of n counts as much as n − 1 comparisons of its strength do."""
    ranking = row["ranking"]
    if not isinstance(ranking, list) or not 2 <= len(ranking) <= MOST_RANKED:
        raise InvalidInputError(f"ranking must be a list of 2 to {MOST_RANKED} responses, best first")
    if len({str(response) for response in ranking}) < len(ranking):
        raise InvalidInputError("ranking names a response twice")
    event_id, strength = row.get("event_id"), 1.0
    if row.get("strength") is not None:
        strength = Ranking(user_id="-", responses=("a", "b"), strength=row["strength"]).strength
    # The pairs of one ranking say much the same: they are never split between support and query.
    group = next((str(row[key]) for key in ("group", "event_id") if row.get(key) is not None), None)
    group = group or repr([str(row.get("user_id")), row.get("prompt"), ranking])
    common = {key: row[key] for key in ("user_id", "prompt", "phase", "created_at") if key in row}
    common |= {"group": group, "strength": strength * 2 / len(ranking)}
    for number, (better, worse) in enumerate(combinations(ranking, 2)):
        named = {} if event_id is None else {"event_id": part_id(str(event_id), number)}
        yield {**common, **named, "chosen": better, "rejected": worse}


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


def _item(prompt: Any, side: str | Response | None) -> Item:
    if isinstance(side, str) and (prompt is None or isinstance(prompt, str)):
        return Item(prompt, side, None)
    return Item.of(prompt, side or "")


def _extras(row: Mapping[str, Any]) -> tuple[object, ...] | None:
    """A row's tie and strength with their types, for True and 1 are equal but not both allowed everywhere."""
    tie, strength = row.get("tie"), row.get("strength")
    plain = all(isinstance(value, bool | int | float | str | None) for value in (tie, strength))
    return (type(tie), tie, type(strength), strength) if plain and row.get("created_at") is None else None


def _phase(row: Mapping[str, Any]) -> int:
    phase = row.get("phase")
    if phase is None:
        return -1
    if not isinstance(phase, str) or phase not in _PHASES:
        raise InvalidInputError(f"phase must be 'support' or 'query', not {str(phase)[:20]!r}")
    return _PHASES[phase]


def _column_names(row: Mapping[str, Any]) -> str:
    return ", ".join(str(key)[:40] for key in list(row)[:8])
