"""Rows of files of all forms, each with the location it came from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from mrm_sdk.data.delimited import read_delimited
from mrm_sdk.data.naming import TableNaming
from mrm_sdk.data.parquet import Used, column_types, read_parquet
from mrm_sdk.data.problems import OnBadRow, stop
from mrm_sdk.data.text_lines import is_utf8, lines
from mrm_sdk.errors import DatasetError

DELIMITED = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_JSONL = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
_JSON = (".json", ".json.gz")
SUFFIXES = (*_JSONL, *DELIMITED, ".parquet", *_JSON)

# Rows of JSON name their columns one by one: the first so many say which there are.
_ROWS_THAT_NAME = 1000

Row = dict[str, Any]


def everything(names: Sequence[str]) -> Sequence[str]:
    """Reads all columns."""
    return names


def read_rows(
    path: Path, naming: TableNaming | None = None, on_bad_row: OnBadRow = stop, used: Used = everything
) -> Iterator[tuple[str, Row]]:
    """Yields ``(location, row)`` for each row of a file; the location names file and line, for messages.

    Args:
        path: the end of its name says of which form it is.
        naming: says what the columns are called; without it, all are read and called as they are.
        on_bad_row: called with a row that cannot be parsed.
        used: which columns are read without a naming, of a form that keeps them apart: Parquet.

    Raises:
        DatasetError: the file cannot be read.
        MissingDependencyError: Parquet without pyarrow.
    """
    name = path.name.lower()
    if name.endswith(".parquet"):
        return read_parquet(path, naming, on_bad_row, used)
    if name.endswith(DELIMITED):
        return read_delimited(path, naming, on_bad_row)
    if name.endswith(_JSONL):
        return _renamed(path, partial(_jsonl, path), naming, on_bad_row)
    if name.endswith(_JSON):
        return _json(path, naming, on_bad_row)
    raise DatasetError(f"{path} is none of {', '.join(SUFFIXES)}; convert it to one of them.")


def first_row(path: Path) -> Row:
    """The first row of a file that can be parsed; of Parquet one of its types: ``[]`` for a list, else ``None``.

    Raises:
        DatasetError: the file cannot be read.
        MissingDependencyError: Parquet without pyarrow.
    """
    if path.name.lower().endswith(".parquet"):
        return {name: [] if is_list else None for name, is_list in column_types(path).items()}
    return next((row for _, row in read_rows(path, on_bad_row=_ignore)), {})


def _renamed(
    path: Path,
    read: Callable[[OnBadRow], Iterator[tuple[str, Row]]],
    naming: TableNaming | None,
    on_bad_row: OnBadRow,
) -> Iterator[tuple[str, Row]]:
    columns = {}
    if naming is not None:
        keys = [tuple(row) for _, row in islice(read(_ignore), _ROWS_THAT_NAME)]
        where = f"{path}, in its first {_ROWS_THAT_NAME} rows," if len(keys) == _ROWS_THAT_NAME else str(path)
        columns = naming.of_rows(where, list(dict.fromkeys(chain.from_iterable(keys))))
    if all(theirs == ours for theirs, ours in columns.items()):
        yield from read(on_bad_row)
        return
    renamed = {*columns, *columns.values()}
    for location, row in read(on_bad_row):
        others = {key: value for key, value in row.items() if key not in renamed}
        yield location, others | {ours: row[theirs] for theirs, ours in columns.items() if theirs in row}


def _json(path: Path, naming: TableNaming | None, on_bad_row: OnBadRow) -> Iterator[tuple[str, Row]]:
    """One array of objects, or one object; some programs also call JSON Lines ``.json``."""
    text = "".join(line for _, line in lines(path)).strip()
    if not is_utf8(text):
        raise DatasetError(f"{path}: not UTF-8 text. Save the file as UTF-8.")
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.startswith("["):
            raise DatasetError(f"{path}: not JSON ({str(error)[:80]})") from None
        return _renamed(path, partial(_jsonl, path), naming, on_bad_row)
    del text
    return _renamed(path, partial(_elements, path, rows if isinstance(rows, list) else [rows]), naming, on_bad_row)


def _elements(path: Path, rows: list[Any], on_bad_row: OnBadRow) -> Iterator[tuple[str, Row]]:
    for number, row in enumerate(rows, 1):
        if isinstance(row, dict):
            yield f"{path}, element {number}", row
        else:
            problem = f"expected a JSON object, not {type(row).__name__}"
            on_bad_row(DatasetError(f"{path}, element {number}: {problem}"))


def _jsonl(path: Path, on_bad_row: OnBadRow) -> Iterator[tuple[str, Row]]:
    where = f"{path}, line "
    for number, line in lines(path):
        if line.isspace():
            continue
        row = _parsed(line)
        if isinstance(row, str):
            on_bad_row(DatasetError(f"{where}{number}: {row}"))
        else:
            yield f"{where}{number}", row


def _parsed(line: str) -> Row | str:
    """The object on a line, or why there is none."""
    if not is_utf8(line):
        return "not UTF-8 text. Save the file as UTF-8."
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return f"not JSON ({error.msg} at character {error.pos + 1})"
    except (ValueError, RecursionError):
        return "not JSON that can be read"
    return row if isinstance(row, dict) else f"expected a JSON object, not {type(row).__name__}"


def _ignore(_: DatasetError) -> None:
    """For a look at a file that is read again."""
