"""A data set: who judged which items how, as columns; imports schemas and the row readers."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.errors import DatasetError, InvalidInputError, NotFoundError
from mrm_sdk.schemas import Comparison, Item, Response
from mrm_sdk.training.rows import SUFFIXES, read_rows

SUPPORT, QUERY = 0, 1
_PHASES = {"support": SUPPORT, "query": QUERY}


@dataclass(frozen=True)
class Dataset:
    """Comparisons of many users, row by row in the order of the file.

    Args:
        items: distinct items.
        user_ids: distinct users, in order of appearance.
        user: index into ``user_ids`` of each comparison, [n].
        chosen: index into ``items``, [n].
        rejected: index into ``items``, [n].
        tie: [n] bool.
        strength: [n].
        phase: :data:`SUPPORT` or :data:`QUERY`, [n].
        event_ids: unique, given or derived from the content, n of them.
        created_at: where the file says when.
        sha256: over the rows' content.
    """

    items: list[Item]
    user_ids: list[str]
    user: NDArray[np.int64]
    chosen: NDArray[np.int64]
    rejected: NDArray[np.int64]
    tie: NDArray[np.bool_]
    strength: NDArray[np.float64]
    phase: NDArray[np.int64]
    event_ids: list[str]
    created_at: list[datetime | None]
    sha256: str

    def __len__(self) -> int:
        return len(self.event_ids)

    def comparisons(self, rows: Iterable[int] | None = None) -> Iterator[Comparison]:
        """Yields rows (all of them by default) as comparisons, as a client would record them."""
        for row in range(len(self)) if rows is None else rows:
            chosen, rejected = self.items[self.chosen[row]], self.items[self.rejected[row]]
            when = self.created_at[row]
            yield Comparison(
                user_id=self.user_ids[self.user[row]],
                prompt=chosen.prompt,
                chosen=Response(text=chosen.text, embedding=chosen.embedding),
                rejected=Response(text=rejected.text, embedding=rejected.embedding),
                tie=bool(self.tie[row]),
                strength=float(self.strength[row]),
                event_id=self.event_ids[row],
                **({} if when is None else {"created_at": when}),
            )

    def describe(self) -> dict[str, Any]:
        """What a manifest or a report says of the data: counts and a hash, never content."""
        return {
            "users": len(self.user_ids),
            "comparisons": len(self),
            "items": len(self.items),
            "ties": int(self.tie.sum()),
            "sha256": self.sha256,
        }


def read_dataset(path: str | Path) -> Dataset:
    """Reads ``comparisons.jsonl[.gz]``, or a folder with it, or one with ``items.jsonl`` and a table of comparisons.

    Raises:
        NotFoundError: there is nothing at ``path``.
        DatasetError: the content is wrong; the message names file and line.
    """
    path = Path(path)
    try:
        exists = path.exists()
    except OSError as error:
        raise NotFoundError(f"{path} cannot be opened: {error.strerror}. Check the path.") from None
    if not exists:
        raise NotFoundError(f"There is no data set at {path}. Check the path.")
    if (path / "manifest.json").is_file():
        raise NotFoundError(f"{path} is a bundle, not a data set. Are the arguments swapped?")
    if not path.is_dir():
        if ".jsonl" in path.name:
            return _build({}, path)
        raise DatasetError(f"{path} is none of comparisons.jsonl[.gz]; a table names items by id: give its folder.")
    names = [f"comparisons{suffix}" for suffix in SUFFIXES]
    found = [path / name for name in names if (path / name).is_file()]
    if len(found) != 1:
        raise DatasetError(f"{path} must hold one of {', '.join(names)}; it holds {len(found)} of them.")
    items = next((path / name for name in ("items.jsonl", "items.jsonl.gz") if (path / name).is_file()), None)
    if items is None and ".jsonl" not in found[0].name:
        raise DatasetError(f"{found[0]} names items by id, but there is no items.jsonl beside it.")
    return _build(_read_items(items) if items else {}, found[0])


def _read_items(path: Path) -> dict[str, Item]:
    items: dict[str, Item] = {}
    for place, row in read_rows(path):
        if "item_id" not in row:
            raise DatasetError(f"{place}: 'item_id' is missing")
        key = str(row["item_id"])
        if key in items:
            raise DatasetError(f"{place}: item id {key!r} appears twice")
        try:
            response = Response(text=row.get("response"), embedding=row.get("embedding"))
            items[key] = Item.of(row.get("prompt"), response)
        except InvalidInputError as error:
            raise DatasetError(f"{place}: {error}") from None
    if not items:
        raise DatasetError(f"{path} holds no items.")
    return items


class _Columns:
    """Collects rows; items are told apart by content, whatever the file calls them."""

    def __init__(self, named: Mapping[str, Item]) -> None:
        self.named = named
        self.items: list[Item] = []
        self.users: dict[str, int] = {}
        self.numbers: list[tuple[int, int, int, bool, float, int]] = []
        self.event_ids: list[str] = []
        self.created_at: list[datetime | None] = []
        self._index: dict[bytes, int] = {}
        self._repeats: Counter[str] = Counter()

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds one row.

        Raises:
            InvalidInputError: a value is missing or wrong.
        """
        missing = {"user_id", "chosen", "rejected"} - row.keys()
        if missing:
            found = ", ".join(str(key)[:40] for key in list(row)[:8])
            raise InvalidInputError(f"{', '.join(map(repr, sorted(missing)))} missing; found: {found}")
        phase = row.get("phase")
        if phase is not None and (not isinstance(phase, str) or phase not in _PHASES):
            raise InvalidInputError(f"phase must be 'support' or 'query', not {str(phase)[:20]!r}")
        values = {key: row[key] for key in ("tie", "strength", "created_at") if row.get(key) is not None}
        values |= {key: str(row[key]) for key in ("user_id", "event_id") if row.get(key) is not None}
        if self.named:
            comparison = Comparison(chosen="", rejected="", **{"event_id": "-", **values})
            chosen, rejected = self._by_name(row, "chosen"), self._by_name(row, "rejected")
        else:
            texts = {key: row.get(key) for key in ("prompt", "chosen", "rejected")}
            comparison = Comparison(**{"event_id": "-", **values, **texts})
            chosen = Item.of(comparison.prompt, comparison.chosen)
            rejected = Item.of(comparison.prompt, comparison.rejected)
        self.event_ids.append(values.get("event_id") or self._derive(comparison, chosen, rejected))
        self.created_at.append(comparison.created_at if "created_at" in values else None)
        user = self.users.setdefault(comparison.user_id, len(self.users))
        items = self._number(chosen), self._number(rejected)
        self.numbers.append((user, *items, comparison.tie, comparison.strength, _PHASES.get(str(phase), -1)))

    def _by_name(self, row: Mapping[str, Any], field: str) -> Item:
        item = self.named.get(str(row[field]))
        if item is None:
            raise InvalidInputError(f"{field}: unknown item id {str(row[field])[:40]!r}, which the items file lacks")
        return item

    def _number(self, item: Item) -> int:
        index = self._index.setdefault(item.key, len(self.items))
        if index == len(self.items):
            self.items.append(item)
        return index

    def _derive(self, comparison: Comparison, chosen: Item, rejected: Item) -> str:
        """An event id from the content, so that importing a file twice adds nothing."""
        judged = [comparison.user_id, chosen.key.hex(), rejected.key.hex(), comparison.tie, comparison.strength]
        content = hashlib.sha256(repr(judged).encode()).hexdigest()[:40]
        self._repeats[content] += 1  # the same judgement made twice is two events
        return f"{content}-{self._repeats[content]}"


def _build(named: Mapping[str, Item], path: Path) -> Dataset:
    columns = _Columns(named)
    for place, row in read_rows(path):
        try:
            columns.add(row)
        except InvalidInputError as error:
            raise DatasetError(f"{place}: {error}") from None
    if not columns.numbers:
        raise DatasetError(f"{path} holds no comparisons.")
    repeated = next((i for i, n in Counter(columns.event_ids).items() if n > 1), None)
    if repeated is not None:
        raise DatasetError(f"{path}: event id {repeated[:60]!r} appears twice")
    sizes = {None if item.embedding is None else len(item.embedding) for item in columns.items}
    if len(sizes) > 1:
        raise DatasetError(f"{path}: all items must have embeddings of one size, or none; found sizes {sizes}")
    user, chosen, rejected, tie, strength, phase = (np.array(c) for c in zip(*columns.numbers, strict=True))
    digest = hashlib.sha256(b"".join(item.key for item in columns.items))
    digest.update("\0".join(columns.users).encode())
    for column in (user, chosen, rejected, tie, strength, phase):
        digest.update(column.tobytes())
    return Dataset(
        items=columns.items,
        user_ids=list(columns.users),
        user=user,
        chosen=chosen,
        rejected=rejected,
        tie=tie,
        strength=strength.astype(np.float64),
        phase=_halve(user, phase, columns.event_ids),
        event_ids=columns.event_ids,
        created_at=columns.created_at,
        sha256=digest.hexdigest(),
    )


def _halve(user: NDArray[np.int64], phase: NDArray[np.int64], event_ids: list[str]) -> NDArray[np.int64]:
    """Gives rows without a phase one: half of each user's are support, chosen by a hash of their ids."""
    (rows,) = np.nonzero(phase < 0)
    if not len(rows):
        return phase
    hashes = np.array([hashlib.sha256(event_ids[row].encode()).digest() for row in rows], dtype="S32")
    order = rows[np.lexsort((hashes, user[rows]))]
    _, start, count = np.unique(user[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(start, count)
    phase = phase.copy()
    phase[order] = np.where(rank < np.repeat(count // 2, count), SUPPORT, QUERY)
    return phase
