"""Where records of other programs' formats come from: files, or a hub of data sets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrm_sdk.data.naming import TableNaming
from mrm_sdk.data.parquet import Used
from mrm_sdk.data.problems import OnBadRow, stop
from mrm_sdk.data.rows import DELIMITED, SUFFIXES, everything, read_rows
from mrm_sdk.errors import DatasetError, InvalidInputError, MissingDependencyError, NotFoundError

Row = dict[str, Any]
# What became of one thing that was judged: rows of our own JSONL shape, or why there are none.
Outcome = list[Row] | str
# What pages of an API say besides their records.
_PAGE = {"data", "meta", "cursors", "next", "has_more", "object", "first_id", "last_id", "total", "count"}


class Cell(str):
    """A cell of CSV, which has no types: a column that holds numbers, lists or chats converts it."""


@dataclass(frozen=True)
class Reading:
    """What became of the records of another program's format; one record is one thing that was judged.

    Args:
        read: how many there were.
        used: how many gave comparisons or ratings.
        skipped: how many did not, by reason; they and ``used`` add up to ``read``.
    """

    read: int
    used: int
    skipped: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        reasons = "".join(f"; {count} left out: {reason}" for reason, count in self.skipped.items())
        return f"{self.read} records read, {self.used} used{reasons}"


@dataclass(frozen=True)
class Source:
    """The tables of a data set.

    Args:
        name: of the data set, for messages.
        find: the records of the table of a name with their locations, or ``None`` where there is no such table.
        on_bad_row: called with a record that is wrong; it is left out.
    """

    name: str
    find: Callable[[str, Used], Iterator[tuple[str, Row]] | None]
    on_bad_row: OnBadRow = stop

    def table(self, name: str, why: str = "", used: Used = everything) -> Iterator[tuple[str, Row]]:
        """The records of a table, absent values left out, each with its location for messages.

        Args:
            name: of the table.
            why: it is needed, and how it is made.
            used: which columns are read, where they can be read one by one; records may hold others all the same.

        Raises:
            DatasetError: there is no such table; the message says ``why`` it is needed.
        """
        records = self.find(name, used)
        if records is None:
            why = why or f"Call the file {name}.jsonl, or give the file itself."
            raise DatasetError(f"{self.name} holds no table {name!r}. {why}")
        for location, record in records:
            for row in _page(record) or [record]:
                yield location, {key: value for key, value in row.items() if value is not None}


def _page(record: Row) -> list[Row] | None:
    """The records of a page as an API returns it, ``{"data": […], "meta": …}``; ``None`` where it is a record."""
    rows = record.get("data")
    is_page = isinstance(rows, list) and record.keys() <= _PAGE and all(isinstance(row, dict) for row in rows)
    return rows if is_page else None


Reader = Callable[[Source], Iterator[tuple[str, Outcome]]]


def only(*needed: str, also: Collection[str] = ()) -> Used:
    """Reads these columns alone; where one that is needed is missing, all, so that messages can name what is there."""

    def used(names: Sequence[str]) -> Collection[str]:
        return [name for name in names if name in needed or name in also] if {*needed} <= {*names} else names

    return used


def per_record(table: str, convert: Callable[[Row], Iterator[Outcome]], used: Used = everything) -> Reader:
    """A reader of one table whose records say all there is to know; ``convert`` may raise ``InvalidInputError``."""

    def read(source: Source) -> Iterator[tuple[str, Outcome]]:
        for location, record in source.table(table, used=used):
            try:
                outcomes = list(convert(record))
            except InvalidInputError as error:
                source.on_bad_row(DatasetError(f"{location}: {error}"))
            else:
                yield from ((location, outcome) for outcome in outcomes)

    return read


def open_source(path: str | Path, naming: TableNaming | None = None, on_bad_row: OnBadRow = stop) -> Source:
    """Opens a file, a folder of files, or, as ``hub:owner/name[:config][@split]``, a data set of the hub.

    A folder's table is the file called so, or the files of a folder called so; a single file is every table. Of the
    hub, a table is the configuration called so, or, where there is none, the only one.

    Args:
        path: where it is.
        naming: says what the columns are called; without it, all are read and called as they are.
        on_bad_row: called with a row that cannot be parsed, and with a record that is wrong.
    """
    if str(path).startswith("hub:"):
        return Source(str(path), _hub(str(path).removeprefix("hub:"), naming), on_bad_row)
    path = Path(path)

    def find(table: str, used: Used) -> Iterator[tuple[str, Row]] | None:
        paths = files(path, table)
        return (row for file in paths for row in _rows(file, naming, on_bad_row, used)) if paths else None

    return Source(str(path), find, on_bad_row)


def files(path: Path, table: str) -> list[Path]:
    """The files of a table: those called so, else those of the folder called so; a file is every table."""
    if not path.is_dir():
        return [path]
    matches = [file for suffix in SUFFIXES if (file := path / f"{table}{suffix}").is_file()]
    inside = path / table
    if not matches and inside.is_dir():
        matches = sorted(file for file in inside.iterdir() if file.name.endswith(SUFFIXES))
    return matches


def _rows(path: Path, naming: TableNaming | None, on_bad_row: OnBadRow, used: Used) -> Iterator[tuple[str, Row]]:
    rows = read_rows(path, naming, on_bad_row, used)
    if not path.name.lower().endswith(DELIMITED):
        return rows
    return ((location, {key: Cell(value) for key, value in row.items()}) for location, row in rows)


def _hub(spec: str, naming: TableNaming | None) -> Callable[[str, Used], Iterator[tuple[str, Row]]]:
    rest, _, split = spec.partition("@")
    name, _, config = rest.partition(":")

    def find(table: str, used: Used) -> Iterator[tuple[str, Row]]:
        try:
            import datasets
        except ImportError:
            raise MissingDependencyError.of("datasets", "hub", "Reading from the hub") from None
        datasets.disable_progress_bars()
        try:
            configs = [config] if config else datasets.get_dataset_config_names(name)
            if len(configs) > 1 and table not in configs:
                raise DatasetError(f"hub:{name} has several configurations; add one of them: :{', :'.join(configs)}")
            chosen = table if table in configs else configs[0]
            loaded = datasets.load_dataset(name, chosen, split=split or None)
        except DatasetError:
            raise
        except Exception as error:  # the library passes on whatever its many dependencies raise
            reason = f"{type(error).__name__}: {str(error)[:200]}"
            raise NotFoundError(f"hub:{spec} cannot be loaded ({reason}). Check the name and the network.") from error
        parts = {split: loaded} if split else dict(loaded)
        for part, records in parts.items():
            names = records.column_names
            columns = {name: name for name in used(names)} if naming is None else naming.of_rows(f"hub:{spec}", names)
            for number, record in enumerate(records.select_columns(list(columns)), 1):
                yield f"hub:{name}, {part}, record {number}", {columns[key]: value for key, value in record.items()}

    return find
