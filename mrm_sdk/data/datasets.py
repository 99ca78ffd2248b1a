"""A data set: who judged which items how, as columns."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.data.columns import Columns
from mrm_sdk.data.contents import QUERY, SUPPORT, Contents, halve, halve_by_hash, short_hash
from mrm_sdk.data.items import Catalogue, read_items, sample_bytes, vectors
from mrm_sdk.data.naming import BY_ID, ITEMS, TEXTS, Naming
from mrm_sdk.data.problems import OnBadRow, stop
from mrm_sdk.data.ratings import Ratings
from mrm_sdk.data.readers import Reader, find_reader, naming_of, recognise
from mrm_sdk.data.readers.source import Reading, open_source
from mrm_sdk.data.rows import SUFFIXES, read_rows
from mrm_sdk.errors import DatasetError, InvalidInputError, NotFoundError
from mrm_sdk.schemas.feedback import Comparison, Rating
from mrm_sdk.schemas.items import Item, Response

__all__ = ["QUERY", "SUPPORT", "Dataset", "Ratings", "Reading", "read_dataset"]


@dataclass(frozen=True, repr=False)
class Dataset:
    """Comparisons of many users, row by row in the order of the file, and ratings where they were asked for.

    Args:
        items: distinct items; with mapped embeddings, all of the items file, in its order.
        user_ids: distinct users, in order of appearance.
        user: index into ``user_ids`` of each comparison, [n].
        chosen: index into ``items``, [n].
        rejected: index into ``items``, [n].
        tie: [n] bool.
        strength: [n].
        phase: :data:`SUPPORT` or :data:`QUERY`, [n].
        event_ids: unique, given or derived from the content, n of them.
        created_at: where the file says when.
        sha256: over the comparisons' content (over the ratings', where there are no comparisons); of mapped
            embeddings, over a sample of their rows.
        embeddings: mapped from ``embeddings.npy``, row i for ``items[i]``, [items, D] float16 or float32, and not
            checked: :meth:`vectors` checks what it reads.
        ratings: ``None`` where there are none, or they were not asked for.
        reading: what became of the records of another program's format.
    """

    items: Sequence[Item]
    user_ids: list[str]
    user: NDArray[np.int64]
    chosen: NDArray[np.int64]
    rejected: NDArray[np.int64]
    tie: NDArray[np.bool_]
    strength: NDArray[np.float64]
    phase: NDArray[np.int64]
    event_ids: Sequence[str]
    created_at: Sequence[datetime | None]
    sha256: str
    embeddings: NDArray[Any] | None = None
    ratings: Ratings | None = None
    reading: Reading | None = None

    def __len__(self) -> int:
        return len(self.user)

    def __repr__(self) -> str:
        ratings = "" if self.ratings is None else f", {len(self.ratings.user)} ratings"
        return f"Dataset({len(self.user_ids)} users, {len(self.items)} items, {len(self)} comparisons{ratings})"

    @property
    def dimension(self) -> int | None:
        """D of the data set's own embeddings; ``None`` where an encoder is needed."""
        if self.embeddings is not None:
            return int(self.embeddings.shape[1])
        own = self.items[0].embedding if self.items else None
        return None if own is None else len(own)

    def vectors(self, rows: Sequence[int] | NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """The own embeddings of some items, [rows, D] float32; only those rows are read from the disk.

        Raises:
            DatasetError: a row holds NaN or infinity, which the message names; or there are no own embeddings.
        """
        if self.embeddings is not None:
            return vectors(self.embeddings, rows)
        own = [self.items[i].embedding for i in np.arange(len(self.items))[rows]]
        if any(embedding is None for embedding in own):
            raise DatasetError("This data set brings no embeddings; an encoder makes them from its texts.")
        return np.array(own, np.float32).reshape(len(own), self.dimension or 0)

    def comparisons(self, rows: Iterable[int] | None = None) -> Iterator[Comparison]:
        """Yields rows (all of them by default) as comparisons, as a client would record them.

        Raises:
            DatasetError: a row compares two items of the same content, which only their ids tell apart.
        """
        for row in range(len(self)) if rows is None else rows:
            chosen, rejected = self.items[self.chosen[row]], self.items[self.rejected[row]]
            when = self.created_at[row]
            try:
                comparison = Comparison(
                    user_id=self.user_ids[self.user[row]],
                    prompt=chosen.prompt,
                    chosen=Response(text=chosen.text, embedding=chosen.embedding),
                    rejected=Response(text=rejected.text, embedding=rejected.embedding),
                    tie=bool(self.tie[row]),
                    strength=float(self.strength[row]),
                    event_id=self.event_ids[row],
                    **({} if when is None else {"created_at": when}),
                )
            except InvalidInputError as error:  # items of two ids may be the same
                raise DatasetError(f"comparison {row + 1} of the data set: {error}") from None
            yield comparison

    def feedback(self) -> Iterator[Comparison | Rating]:
        """Yields everything that was said, as a client would record it: the comparisons, then the ratings."""
        yield from self.comparisons()
        ratings, repeats = self.ratings, Counter[str]()
        if ratings is None:
            return
        for row in range(len(ratings)):
            item, user_id = self.items[ratings.item[row]], self.user_ids[ratings.user[row]]
            value, strength = float(ratings.value[row]), float(ratings.strength[row])
            when: dict[str, Any] = {"created_at": ratings.created_at[row]} if row in ratings.created_at else {}
            content = hashlib.sha256(repr([user_id, item.key.hex(), value, strength]).encode()).hexdigest()[:40]
            repeats[content] += 1
            yield Rating(
                user_id=user_id,
                prompt=item.prompt,
                response=Response(text=item.text, embedding=item.embedding),
                value=value,
                strength=strength,
                event_id=ratings.event_ids.get(row, f"{content}-{repeats[content]}"),
                **when,
            )

    def place(self, row: int) -> str:
        """Names a row of :meth:`feedback` for a person: its number, user and, if it is a comparison, event."""
        if row >= len(self):
            user = -1 if self.ratings is None else self.ratings.user[row - len(self)]
            return f"rating {row - len(self) + 1} (user {self.user_ids[user]})"
        return f"comparison {row + 1} (event {self.event_ids[row]}, user {self.user_ids[self.user[row]]})"

    def subset(self, rows: NDArray[np.int64]) -> Dataset:
        """Some of the comparisons, in this order, with the users who made them; there are no ratings in it.

        Items that are in no comparison any more are left out, unless rows of mapped embeddings belong to them.
        """
        users, user = np.unique(self.user[rows], return_inverse=True)
        columns = {name: getattr(self, name)[rows] for name in ("chosen", "rejected", "tie", "strength", "phase")}
        items = self.items
        if self.embeddings is None:
            used, pairs = np.unique(np.stack([columns["chosen"], columns["rejected"]]), return_inverse=True)
            columns["chosen"], columns["rejected"] = pairs.reshape(2, -1)
            items = [self.items[i] for i in used if i < len(self.items)]  # behind them is the threshold of ratings
        digest = hashlib.sha256(self.sha256.encode() + np.asarray(rows, np.int64).tobytes())
        return replace(
            self,
            **columns,
            items=items,
            user_ids=[self.user_ids[u] for u in users],
            user=user,
            event_ids=[self.event_ids[row] for row in rows],
            created_at=[self.created_at[row] for row in rows],
            sha256=digest.hexdigest(),
            ratings=None,
        )

    def describe(self) -> dict[str, Any]:
        """What a manifest or a report says of the data: counts and a hash, never content."""
        described = {
            "users": len(self.user_ids),
            "comparisons": len(self),
            "items": len(self.items),
            "ties": int(self.tie.sum()),
            "sha256": self.sha256,
        }
        return described if self.ratings is None else {**described, "ratings": len(self.ratings)}


def read_dataset(
    path: str | Path,
    *,
    format: str | Reader = "auto",
    ratings: bool = False,
    columns: Mapping[str, str] | None = None,
    on_bad_row: OnBadRow = stop,
) -> Dataset:
    """Reads a data set in one of our own forms, or in another program's.

    Args:
        path: a file of JSON Lines, JSON, CSV, TSV or Parquet; a folder with ``comparisons`` or ``ratings`` and, where
            these name items by id, ``items``, each in one of these forms; a file or folder of another program's; or
            ``hub:owner/name[:config][@split]``.
        format: a name out of :data:`~mrm_sdk.data.readers.READERS`, ``own``, a reader, or ``auto``: own forms, and
            others where their file names or first record leave no doubt.
        ratings: also read the folder's ratings; always read if there are no comparisons.
        columns: what the file calls our columns, as ``{"user_id": "annotator"}``; names that differ from ours in case,
            spaces, points or dashes alone are found without.
        on_bad_row: called with a row that is wrong, named by file and line; if it returns, the row is left out and the
            reading goes on. By default, the first such row is raised.

    Raises:
        NotFoundError: there is nothing at ``path``.
        DatasetError: the content is wrong; the message names file and line.
        ConfigurationError: there is no such format, or no such column of ours or of the file.
        MissingDependencyError: an extra is not installed.

    Example:
        >>> from mrm_sdk.data import read_dataset
        >>> rows = ["annotator;Prompt;Chosen;Rejected", "ada;What is DNS?;A phone book.;See RFC 1034."]
        >>> with open("judged.csv", "w") as file:
        ...     print(*rows, sep=chr(10), file=file)
        >>> read_dataset("judged.csv", columns={"user_id": "annotator"})
        Dataset(1 users, 2 items, 1 comparisons)
    """
    naming = Naming(columns)
    if str(path).startswith("hub:"):
        return _read_foreign(str(path), find_reader(format, str(path)), naming, on_bad_row)
    path = Path(path)
    try:
        exists = path.exists()
    except OSError as error:
        raise NotFoundError(f"{path} cannot be opened: {error.strerror}. Check the path.") from None
    if not exists:
        raise NotFoundError(f"There is no data set at {path}. Check the path.")
    if (path / "manifest.json").is_file():
        raise NotFoundError(f"{path} is a bundle, not a data set. Are the arguments swapped?")
    if format == "auto":
        format = recognise(path, columns)
    if format != "own":
        return _read_foreign(path, find_reader(format, path.name), naming, on_bad_row)
    return _read_own(path, ratings, naming, on_bad_row)


def _read_own(path: Path, with_ratings: bool, naming: Naming, on_bad_row: OnBadRow) -> Dataset:
    comparisons: Path | None = path
    rated, items, alone = None, None, not path.is_dir()
    if alone:
        if path.name.startswith(("comparisons.", "ratings.")) and _only(path.parent, "items"):
            raise DatasetError(f"{path} lies beside items: a table names items by id; give its folder.")
    else:
        comparisons, rated, items = (_only(path, kind) for kind in ("comparisons", "ratings", "items"))
        if comparisons is None and rated is None:
            raise DatasetError(f"{path} must hold one of {_forms('comparisons')}; it holds 0 of them, and no ratings.")
    catalogue = Catalogue({}, [], [], None) if items is None else read_items(items, naming.of(ITEMS), on_bad_row)
    collected, known = Columns(catalogue), TEXTS if items is None else BY_ID
    if comparisons is not None:
        _add_all(read_rows(comparisons, naming.of(known, alone=alone), on_bad_row), collected.add, on_bad_row)
    contents = collected.contents()  # before ratings add users and items
    if rated is not None and (with_ratings or comparisons is None):
        _add_all(read_rows(rated, naming.of(known, rated=True), on_bad_row), collected.add_rating, on_bad_row)
    naming.check_used(path)
    return _finish(collected, contents, str(comparisons or rated))


def _only(folder: Path, kind: str) -> Path | None:
    files = [path for suffix in SUFFIXES if (path := folder / f"{kind}{suffix}").is_file()]
    if len(files) > 1:
        raise DatasetError(f"{folder} must hold one of {_forms(kind)}; it holds {len(files)} of them.")
    return files[0] if files else None


def _forms(kind: str) -> str:
    return f"{kind}.jsonl, .ndjson, .json, .csv, .tsv (each also with .gz) or .parquet"


def _add_all(
    rows: Iterator[tuple[str, dict[str, Any]]], add: Callable[[dict[str, Any]], None], on_bad_row: OnBadRow
) -> None:
    for location, row in rows:
        try:
            add(row)
        except InvalidInputError as error:
            on_bad_row(DatasetError(f"{location}: {error}"))


def _read_foreign(path: str | Path, reader: Reader, naming: Naming, on_bad_row: OnBadRow) -> Dataset:
    source = open_source(path, naming_of(reader, naming), on_bad_row)
    columns = Columns(Catalogue({}, [], [], None))
    skipped: Counter[str] = Counter()
    used = 0
    for location, outcome in reader(source):
        if isinstance(outcome, str):
            skipped[outcome] += 1
            continue
        try:
            columns.add(*outcome)
        except InvalidInputError as error:
            on_bad_row(DatasetError(f"{location}: {error}"))
        else:
            used += 1
    reading = Reading(used + skipped.total(), used, dict(skipped.most_common()))
    if not len(columns) and not len(columns.ratings):
        raise DatasetError(f"{source.name} gives no comparisons. {reading}")
    return replace(_finish(columns, columns.contents(), source.name), reading=reading)


def _finish(columns: Columns, contents: Contents, name: str) -> Dataset:
    if not len(columns) and not len(columns.ratings):
        raise DatasetError(f"{name} holds no comparisons.")
    event_ids = columns.event_ids(contents)
    repeated = event_ids.repeated(columns.stated_ids)
    if repeated is not None:
        raise DatasetError(f"{name}: event id {repeated[:60]!r} appears twice")
    users, items = list(columns.users), columns.items
    ratings = columns.ratings.columns() if len(columns.ratings) else None
    if ratings is not None and not len(contents.user):
        ratings = _halve_ratings(ratings, users, columns.keys)
    created_at: list[datetime | None] = [None] * len(columns)
    for row, when in columns.created_at.items():
        created_at[row] = when
    return Dataset(
        items=items,
        user_ids=users,
        user=contents.user,
        chosen=contents.chosen,
        rejected=contents.rejected,
        tie=contents.tie,
        strength=contents.strength,
        phase=halve(contents, event_ids),
        event_ids=event_ids,
        created_at=created_at,
        sha256=_digest(columns, contents, ratings),
        embeddings=columns.embeddings,
        ratings=ratings,
    )


def _digest(columns: Columns, contents: Contents, ratings: Ratings | None) -> str:
    digest = hashlib.sha256(b"".join(contents.keys))
    digest.update("\0".join(contents.user_ids).encode())
    for column in (contents.user, contents.chosen, contents.rejected, contents.tie, contents.strength, contents.phase):
        digest.update(column.tobytes())
    if ratings is not None and not len(contents.user):
        digest.update(b"".join(columns.keys) + "\0".join(columns.users).encode())
        for column in (ratings.user, ratings.item, ratings.value, ratings.strength, ratings.phase):
            digest.update(column.tobytes())
    if columns.embeddings is not None:
        digest.update(sample_bytes(columns.embeddings))
    return digest.hexdigest()


def _halve_ratings(ratings: Ratings, user_ids: list[str], keys: Sequence[bytes]) -> Ratings:
    """Gives ratings without a phase one: half of each user's items are support, so the halves share no item."""
    (rows,) = np.nonzero(ratings.phase < 0)
    user, item = ratings.user[rows], ratings.item[rows]
    pairs = zip(user, item, strict=True)
    hashes = np.fromiter((short_hash(f"{user_ids[u]}\0{keys[i].hex()}") for u, i in pairs), np.uint64, len(rows))
    phase = ratings.phase.copy()
    phase[rows] = halve_by_hash(user, hashes)
    return replace(ratings, phase=phase)
