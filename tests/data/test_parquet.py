"""Parquet: only the columns that are wanted are read; times and bytes that Python cannot hold; no pandas."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mrm_sdk.data.datasets import read_dataset
from mrm_sdk.data.rows import read_rows
from mrm_sdk.errors import DatasetError, MissingDependencyError
from tests.conftest import ROOT
from tests.data.readers.test_readers import said

COLUMNS: dict[str, Any] = {"user_id": ["u", "v"], "prompt": ["p", None], "chosen": ["a", "b"], "rejected": ["b", "a"]}
NOON = datetime(2026, 1, 2, 12, 0, 0, 123456, UTC)


def write(path: Path, **more: Any) -> Path:
    pq.write_table(pa.table({**COLUMNS, **more}), path)
    return path


@pytest.mark.slow
def test_all_of_this_without_pandas(tmp_path: Path) -> None:
    """The other tests of this file, in a process that cannot import pandas."""
    (tmp_path / "pandas.py").write_text("raise ImportError('not here')")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "not slow", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout


def write_beside_a_ruin(path: Path, table: pa.Table, ruin: str = "screenshot") -> Path:
    """Adds a column ``ruin`` whose pages are overwritten: reading a single one of them fails."""
    marks = pa.array([b"\xee" * 5000] * len(table), pa.binary())
    pq.write_table(table.append_column(ruin, marks), path, compression="none", use_dictionary=False)
    group = pq.ParquetFile(path).metadata.row_group(0)
    column = group.column(group.num_columns - 1)
    assert column.path_in_schema == ruin
    with path.open("r+b") as file:
        file.seek(column.data_page_offset)
        file.write(b"\xff" * column.total_compressed_size)
    return path


def test_only_wanted_columns_are_read(tmp_path: Path) -> None:
    path = write_beside_a_ruin(tmp_path / "x.parquet", pa.table(COLUMNS))
    assert said(read_dataset(path)) == [("u", "p", "a", "b"), ("v", None, "b", "a")]
    assert said(read_dataset(path, format="trl")) == said(read_dataset(path))
    with pytest.raises(DatasetError, match="cannot be read as Parquet"):
        list(read_rows(path))


def test_columns_with_points_in_their_names(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", **{"meta.user": ["x", "y"], "meta": [{"user": "m", "n": 1}] * 2})
    assert read_dataset(path, columns={"user_id": "meta.user"}).user_ids == ["x", "y"]


@pytest.mark.parametrize("kind", [
    pa.timestamp("s", "UTC"), pa.timestamp("ms", "UTC"), pa.timestamp("us", "UTC"), pa.timestamp("ns", "UTC"),
    pa.timestamp("ns", "Europe/Oslo"), pa.timestamp("us", "Not/Known"),
], ids=str)  # fmt: skip
def test_times_in_every_unit(tmp_path: Path, kind: pa.DataType) -> None:
    """Cut to microseconds, and the same moment whatever the zone, known here or not."""
    nanoseconds = int(NOON.timestamp()) * 10**9 + 123_456_789
    value = nanoseconds // {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[kind.unit]
    times = pa.array([value, None], pa.int64()).cast(kind)
    data = read_dataset(write(tmp_path / "x.parquet", created_at=times))
    cut = {"s": 123456, "ms": 456}.get(kind.unit, 0)
    assert data.created_at == [NOON - timedelta(microseconds=cut), None]


def test_nanoseconds_within_lists_and_structures(tmp_path: Path) -> None:
    moment = pa.timestamp("ns", "UTC")
    nested = pa.array([[{"t": 1001}], None], pa.list_(pa.struct([("t", pa.int64())])))
    nested = nested.cast(pa.list_(pa.struct([("t", moment)])))
    took, at = pa.array([1001, 1], pa.duration("ns")), pa.array([1001, 1], pa.time64("ns"))
    (_, row), _ = read_rows(write(tmp_path / "x.parquet", nested=nested, took=took, at=at))
    assert row["nested"][0]["t"] == datetime(1970, 1, 1, 0, 0, 0, 1, UTC)
    assert (row["took"], row["at"].microsecond) == (timedelta(microseconds=1), 1)


FAR = [
    pa.array([2**58, 0], pa.timestamp("us", "UTC")),
    pa.array([2**52, 0], pa.timestamp("ms", "UTC")),
    pa.array([-(2**45), 0], pa.timestamp("s", "UTC")),
    pa.array([2**58, 0], pa.timestamp("us")),
    pa.array([10**7, 0], pa.date32()),
]


@pytest.mark.parametrize("times", FAR, ids=lambda times: str(times.type))
def test_times_outside_of_pythons_calendar(tmp_path: Path, times: pa.Array) -> None:
    path = write(tmp_path / "x.parquet", created_at=times)
    with pytest.raises(DatasetError, match=r"x\.parquet, row 1: created_at is out of range"):
        read_dataset(path)
    assert len(read_dataset(write(path, other=times))) == 2  # a column that is not read


def test_a_time_in_the_far_future_that_python_can_hold(tmp_path: Path) -> None:
    times = pa.array([datetime(9999, 12, 31, tzinfo=UTC)] * 2)
    with pytest.raises(DatasetError, match=r"row 1: .*more than a day in the future"):
        read_dataset(write(tmp_path / "x.parquet", created_at=times))
    with pytest.raises(DatasetError, match=r"row 1: .*created_at"):
        read_dataset(write(tmp_path / "x.parquet", created_at=[date(2026, 1, 1)] * 2))


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_text_that_is_not_utf_8(tmp_path: Path, kind: pa.DataType) -> None:
    raw = pa.array([b"fine", b"\xff\xfe"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 2, raw.buffers()).cast(kind)
    path = write(tmp_path / "x.parquet", prompt=text)
    with pytest.raises(DatasetError, match=r"x\.parquet, row 2: prompt is not UTF-8 text"):
        read_dataset(path)
    told: list[str] = []
    data = read_dataset(path, on_bad_row=lambda problem: told.append(str(problem)))
    assert (said(data), len(told)) == ([("u", "fine", "a", "b")], 1)


def test_rows_of_many_batches_and_row_groups(tmp_path: Path) -> None:
    n = 10_000
    table = pa.table({"user_id": np.arange(n) % 50, "prompt": [f"p{i}" for i in range(n)],
                      "chosen": ["a"] * n, "rejected": ["b"] * (n - 1) + ["a"]})  # fmt: skip
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=3000)
    with pytest.raises(DatasetError, match=r"row 10000: chosen and rejected are the same"):
        read_dataset(tmp_path / "x.parquet")


def test_a_column_twice(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([*map(pa.array, COLUMNS.values()), pa.array(["x", "y"])], [*COLUMNS, "chosen"])
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match="has two columns 'chosen'"):
        read_dataset(tmp_path / "x.parquet")


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"Parquet needs pyarrow.*mrm-sdk\[train\]"):
        read_dataset(path)
