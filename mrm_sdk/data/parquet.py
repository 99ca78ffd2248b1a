"""Rows of Parquet files: only the columns that are wanted are read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mrm_sdk.data.naming import TableNaming
from mrm_sdk.data.problems import OnBadRow
from mrm_sdk.errors import DatasetError, MissingDependencyError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

# Of the names of a table's columns, those that are read.
Used: TypeAlias = Callable[[Sequence[str]], Collection[str]]
# Of one batch that is in memory at once.
_ROWS = 4096


def read_parquet(
    path: Path, naming: TableNaming | None, on_bad_row: OnBadRow, used: Used
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields ``(location, row)``; nulls are left out, nanoseconds are cut to microseconds.

    Args:
        path: of the file.
        naming: says what the columns are called, and which are read; without it, ``used`` says which.
        on_bad_row: called with a row that Python cannot hold.
        used: names of all columns -> those that are read.

    Raises:
        DatasetError: the file cannot be read.
        MissingDependencyError: there is no pyarrow.
    """
    where = f"{path}, row "
    for number, row in enumerate(_rows(path, naming, used), 1):
        if isinstance(row, str):
            on_bad_row(DatasetError(f"{where}{number}: {row}"))
        else:
            yield f"{where}{number}", row


def column_types(path: Path) -> dict[str, bool]:
    """The columns of a file, and which of them hold lists.

    Raises:
        DatasetError: the file cannot be read.
        MissingDependencyError: there is no pyarrow.
    """
    with _opened(path) as file:
        return {field.name: hasattr(field.type, "value_field") for field in file.schema_arrow}


@contextmanager
def _opened(path: Path) -> Iterator[parquet.ParquetFile]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise MissingDependencyError.of("pyarrow", "train", "Reading Parquet") from None
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (ArrowException, OSError) as error:
        raise DatasetError(f"{path} cannot be read as Parquet: {error}") from None


def _rows(path: Path, naming: TableNaming | None, used: Used) -> Iterator[dict[str, Any] | str]:
    """Rows of Python values; in place of a row that Python cannot hold, why."""
    with _opened(path) as file:
        names = file.schema_arrow.names
        columns = {name: name for name in used(names)} if naming is None else naming.of_header(str(path), names)
        twice = next((name for name in columns if names.count(name) > 1), None)
        if twice is not None:
            raise DatasetError(f"{path} has two columns {twice[:40]!r}; rename one of them")
        for batch in file.iter_batches(batch_size=_ROWS, columns=list(columns)):
            cells = {
                ours: array.cast(kind, safe=False) if (kind := _kind(array.type)) != array.type else array
                for theirs, ours in columns.items()
                for array in [batch.column(theirs)]
            }
            try:
                lists = {name: array.to_pylist() for name, array in cells.items()}
            except (ValueError, OverflowError):
                yield from (
                    _row({name: array[number] for name, array in cells.items()}) for number in range(len(batch))
                )
                continue
            for values in zip(*lists.values(), strict=True):
                row = zip(lists, values, strict=True)
                yield {name: value for name, value in row if value is not None} if None in values else dict(row)


def _row(cells: dict[str, Any]) -> dict[str, Any] | str:
    row = {}
    for name, cell in cells.items():
        try:
            value = cell.as_py()
        except UnicodeDecodeError:
            return f"{name[:40]} is not UTF-8 text"
        except (ValueError, OverflowError):
            return f"{name[:40]} is out of range; times end with the year 9999"
        if value is not None:
            row[name] = value
    return row


def _kind(kind: pa.DataType) -> pa.DataType:
    """The type in which Python's values are exact to a microsecond and need neither pandas nor a time zone database."""
    import pyarrow as pa

    if pa.types.is_timestamp(kind):
        return pa.timestamp("us" if kind.unit == "ns" else kind.unit, "UTC" if kind.tz else None)
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if pa.types.is_time64(kind):
        return pa.time64("us")
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = kind.value_field.with_type(_kind(kind.value_type))
        return pa.large_list(inner) if pa.types.is_large_list(kind) else pa.list_(inner)
    if pa.types.is_struct(kind):
        return pa.struct([kind.field(i).with_type(_kind(kind.field(i).type)) for i in range(kind.num_fields)])
    return kind
