"""Rows of JSON Lines, CSV and Parquet files, each with the location it came from."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from mrm_sdk.errors import DatasetError, MissingDependencyError

SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet")
# What other programs write; a data set of our own is never called so.
FOREIGN = (*SUFFIXES, ".json", ".json.gz")


# Of a cell of CSV, in characters: as many as csv can count on every system.
LONGEST_CELL = 2**31 - 1


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields ``(location, row)`` for each row of a file; the location names file and line, for messages.

    Raises:
        DatasetError: the file cannot be read or parsed; the message names the line.
        MissingDependencyError: Parquet without pyarrow.
    """
    name = path.name.lower()
    if name.endswith(".parquet"):
        return _parquet(path)
    if name.endswith((".csv", ".csv.gz")):
        return _csv(path)
    if name.endswith((".jsonl", ".jsonl.gz")):
        return _jsonl(path)
    if name.endswith((".json", ".json.gz")):
        return _json(path)
    raise DatasetError(f"{path} is none of {', '.join(FOREIGN)}; convert it to one of them.")


def _json(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """One array of objects, or one object; some programs also call JSON Lines ``.json``."""
    text = "".join(line for _, line in _lines(path)).strip()
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        if not text.startswith("["):
            yield from _jsonl(path)
            return
        raise DatasetError(f"{path}: not JSON ({str(error)[:80]})") from None
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], 1):
        if not isinstance(row, dict):
            raise DatasetError(f"{path}, element {number}: expected a JSON object, not {type(row).__name__}")
        yield f"{path}, element {number}", row


def _jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DatasetError(f"{path}, line {number}: not JSON ({error.msg} at character {error.pos + 1})") from None
        except (ValueError, RecursionError):
            raise DatasetError(f"{path}, line {number}: not JSON that can be read") from None
        if not isinstance(row, dict):
            raise DatasetError(f"{path}, line {number}: expected a JSON object, not {type(row).__name__}")
        yield f"{path}, line {number}", row


def _csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))  # for the process: csv knows no other way
    reader = csv.reader(line for _, line in _lines(path))
    try:
        header = next(reader, None)
        if header is None:
            return
        twice = [name for name, count in Counter(header).items() if count > 1]
        if twice:
            raise DatasetError(f"{path}, line 1: the header names {twice[0][:40]!r} twice; rename one of the columns")
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                raise DatasetError(
                    f"{path}, line {reader.line_num}: {len(values)} columns where the header has {len(header)}"
                )
            # An empty cell is an absent value, as a missing key is in JSON.
            yield (
                f"{path}, line {reader.line_num}",
                {key: value for key, value in zip(header, values, strict=True) if value != ""},
            )
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise MissingDependencyError.of("pyarrow", "train", "Reading Parquet") from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", {key: value for key, value in row.items() if value is not None}
    except (ArrowException, OSError) as error:
        raise DatasetError(f"{path} cannot be read as Parquet: {error}") from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                yield number, line
    except UnicodeDecodeError:
        raise DatasetError(f"{path}, near line {number + 1}: not UTF-8 text") from None
    except (OSError, EOFError, zlib.error) as error:  # gzip reports damage as any of these
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"{path} cannot be read after line {number}: {reason}") from None


def _open(path: Path) -> TextIO:
    if path.name.lower().endswith(".gz"):
        return cast(TextIO, gzip.open(path, "rt", encoding="utf-8-sig", newline=""))
    return path.open(encoding="utf-8-sig", newline="")
