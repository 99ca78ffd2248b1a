"""From rows to columns: every row is checked, items and users become numbers."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import datetime
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.data.contents import QUERY, SUPPORT, Contents, EventIds, short_hash
from mrm_sdk.data.ids import id_text, user_id_text
from mrm_sdk.data.items import Catalogue, check_size, is_plain, size_of
from mrm_sdk.data.naming import TRL
from mrm_sdk.data.problems import listed
from mrm_sdk.data.ratings import RatingColumns
from mrm_sdk.data.readers.chats import unpacked
from mrm_sdk.errors import InvalidInputError
from mrm_sdk.schemas.feedback import MOST_RANKED, Comparison, Ranking, Rating, part_id
from mrm_sdk.schemas.frozen import MAX_ID_BYTES, identifier
from mrm_sdk.schemas.items import Item, Response, prompt_text

_NEEDED = {"user_id", "chosen", "rejected"}
_HASHABLE = (bool, int, float, str, type(None))
_PHASES = {"support": SUPPORT, "query": QUERY}
_REMEMBERED = 4096
# Characters of an id that has few enough bytes in any language.
_SURELY_SHORT = MAX_ID_BYTES // 4


class _Compared(NamedTuple):
    """A comparison whose parts were checked; an item, or its place in the catalogue."""

    user_id: str
    items: tuple[Item | int, Item | int]
    tie: bool
    strength: float
    phase: int
    group: int
    event_id: str | None
    created_at: datetime | None


class _Rated(NamedTuple):
    """A rating whose parts were checked; an item, or its place in the catalogue."""

    user_id: str
    items: tuple[Item | int]
    value: float
    strength: float
    phase: int
    event_id: str | None
    created_at: datetime | None


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
        self._ids: set[str] = set()
        self._size: int | None = None  # of the items' own embeddings; 0: they have none
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

    @property
    def stated_ids(self) -> Set[str]:
        """Event ids that rows state, of comparisons and of ratings."""
        return self._ids

    def add(self, *rows: Mapping[str, Any]) -> None:
        """Adds rows, each a comparison, a ranking, a rating or a thumb: all of them, or, at an error, none.

        Raises:
            InvalidInputError: a value is missing or wrong, or an event id or a size of embeddings does not fit to
                earlier rows.
        """
        self._append([one for row in rows for one in self._judged(row)])

    def add_rating(self, row: Mapping[str, Any]) -> None:
        """Adds one rating or thumb; its item is named by ``item_id``, or told by ``prompt`` and ``response``.

        Raises:
            InvalidInputError: see :meth:`add`.
        """
        self._append([self._rated(row)])

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

    def _judged(self, row: Mapping[str, Any]) -> Sequence[_Compared | _Rated]:
        if "chosen" in row or "rejected" in row:
            return (self._compared(row),)
        if "ranking" in row:
            return [self._compared(pair) for pair in _pairs(row)]
        if "rating" in row or "thumb" in row:
            return (self._rated(row),)
        return (self._compared(row),)  # says what is missing

    def _append(self, judged: Sequence[_Compared | _Rated]) -> None:
        ids = [one.event_id for one in judged if one.event_id is not None]
        if ids:
            self._check_ids(ids)
        if not self._catalogue.index:
            self._check_sizes(judged)
        self._ids.update(ids)
        for one in judged:
            user = self.users.setdefault(one.user_id, len(self.users))
            if isinstance(one, _Rated):
                item = self._number(one.items[0])
                self.ratings.add(user, item, one.value, one.strength, one.phase, one.event_id, one.created_at)
                continue
            _, (chosen, rejected), tie, strength, phase, group, event_id, created_at = one
            if event_id is not None:
                self._stated[len(self)] = event_id
            if created_at is not None:
                self.created_at[len(self)] = created_at
            self._user.append(user)
            self._chosen.append(self._number(chosen))
            self._rejected.append(self._number(rejected))
            self._tie.append(tie)
            self._strength.append(strength)
            self._phase.append(phase)
            self._group.append(group)

    def _check_ids(self, ids: list[str]) -> None:
        for number, name in enumerate(ids):
            if name in self._ids or name in ids[:number]:
                raise InvalidInputError(f"event id {name[:60]!r} appears twice")

    def _check_sizes(self, judged: Sequence[_Compared | _Rated]) -> None:
        size = self._size
        for one in judged:
            for item in one.items:
                if isinstance(item, Item) and (size != 0 or item.embedding is not None):
                    check_size(item, size)
                    size = size_of(item)
        self._size = size

    def _rated(self, row: Mapping[str, Any]) -> _Rated:
        value = self.ratings.value(row)
        user_id: Any = row.get("user_id")
        if not self._is_known(user_id):
            user_id = identifier("user_id", user_id_text(user_id))
        field = "item_id" if self._catalogue.index else "response"
        if field not in row:
            raise InvalidInputError(_missing([field], row))
        item: Item | int
        if self._catalogue.index:
            item = self._named(row, field)
        else:
            prompt, response = row.get("prompt"), row["response"]
            item = Item(prompt, response, None) if _are_plain(prompt, response) else Item.of(prompt, response)
        event_id = (
            identifier("event_id", id_text("event_id", row["event_id"])) if row.get("event_id") is not None else None
        )
        when, strength = None, 1.0
        extras = {key: row[key] for key in ("created_at", "strength") if row.get(key) is not None}
        if extras:
            checked = Rating(user_id=user_id, response="", value=value, **extras)
            when, strength = checked.created_at if "created_at" in extras else None, checked.strength
        return _Rated(user_id, (item,), value, strength, _phase(row), event_id, when)

    def _compared(self, row: Mapping[str, Any]) -> _Compared:
        if not row.keys() >= _NEEDED:
            raise InvalidInputError(_missing(sorted(_NEEDED - row.keys()), row))
        phase, user_id, event_id, when = _phase(row), row["user_id"], row.get("event_id"), None
        if not self._is_known(user_id):
            user_id = user_id_text(user_id)
        if event_id is not None:
            event_id = id_text("event_id", event_id)
        by_id = bool(self._catalogue.index)
        prompt, chosen, rejected = (None, "a", "b") if by_id else (row.get("prompt"), row["chosen"], row["rejected"])
        extras = _extras(row)
        checked_before = None if extras is None else self._remembered.get(extras)
        # Most rows repeat what was checked before: a known user, usual extras, plain texts.
        if (
            checked_before is not None
            and user_id in self.users
            and (event_id is None or (len(event_id) <= _SURELY_SHORT and is_plain(event_id)))
            and (by_id or _are_plain(prompt, chosen, rejected))
        ):
            tie, strength = checked_before
        else:
            values = {key: row[key] for key in ("tie", "strength", "created_at") if row.get(key) is not None}
            values |= {"user_id": user_id, "prompt": prompt, "chosen": chosen, "rejected": rejected}
            checked = Comparison(event_id="-" if event_id is None else event_id, **values)
            tie, strength, user_id = checked.tie, checked.strength, checked.user_id
            prompt, chosen, rejected = prompt_text(checked.prompt), checked.chosen, checked.rejected
            when = checked.created_at if "created_at" in values else None
            if extras is not None and len(self._remembered) < _REMEMBERED:
                self._remembered[extras] = tie, strength
        pair: tuple[Item | int, Item | int]
        if by_id:
            first, second = self._named(row, "chosen"), self._named(row, "rejected")
            pair, same = (first, second), self._catalogue.keys[first] == self._catalogue.keys[second]
        else:
            pair = better, worse = _item(prompt, chosen), _item(prompt, rejected)
            same = better.key == worse.key
        if same:
            raise InvalidInputError("chosen and rejected are the same response, so nothing is compared")
        group = 0 if row.get("group") is None else short_hash(str(row["group"]))
        return _Compared(user_id, pair, tie, strength, phase, group, event_id, when)

    def _is_known(self, user_id: object) -> bool:
        """Whether it is, as it stands, the id of a user of earlier rows."""
        return type(user_id) is str and user_id in self.users

    def _named(self, row: Mapping[str, Any], field: str) -> int:
        name = row[field] if type(row[field]) is str else id_text(field, row[field])
        index = self._catalogue.index.get(name)
        if index is None:
            name = id_text(field, name)
            raise InvalidInputError(f"{field}: unknown item id {name[:40]!r}, which the items file lacks")
        return index

    def _number(self, item: Item | int) -> int:
        if isinstance(item, int):
            if self._catalogue.embeddings is not None:
                return item
            if self._numbers[item] < 0:
                self._numbers[item] = self._number(self._catalogue.items[item])
            return self._numbers[item]
        number = self._by_content.setdefault(item.key, len(self._items))
        if number == len(self._items):
            self._items.append(item)
        return number


def _pairs(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All pairs of a ranking; a ranking of n counts as much as n − 1 comparisons of its strength do."""
    ranking = unpacked(row["ranking"])  # in a cell of CSV
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


def _are_plain(prompt: object, *texts: object) -> bool:
    return (prompt is None or is_plain(prompt)) and all(map(is_plain, texts))


def _item(prompt: str | None, side: str | Response) -> Item:
    return Item(prompt, side, None) if isinstance(side, str) else Item.of(prompt, side)


def _extras(row: Mapping[str, Any]) -> tuple[object, ...] | None:
    """A row's tie and strength with their types, for True and 1 are equal but not both allowed everywhere."""
    tie, strength = row.get("tie"), row.get("strength")
    plain = isinstance(tie, _HASHABLE) and isinstance(strength, _HASHABLE) and row.get("created_at") is None
    return (type(tie), tie, type(strength), strength) if plain else None


def _phase(row: Mapping[str, Any]) -> int:
    phase = row.get("phase")
    if phase is None:
        return -1
    if not isinstance(phase, str) or phase not in _PHASES:
        raise InvalidInputError(f"phase must be 'support' or 'query', not {str(phase)[:20]!r}")
    return _PHASES[phase]


def _missing(names: list[str], row: Mapping[str, Any]) -> str:
    hint = "" if row.keys() <= TRL else f". If it has another name, say so: --column {names[0]}=NAME"
    return f"{', '.join(map(repr, names))} missing; found: {listed(row)}{hint}"
