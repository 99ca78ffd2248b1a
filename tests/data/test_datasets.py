"""Data sets in each form, and what is wrong with them said with file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.data.datasets import read_dataset
from mrm_sdk.errors import DatasetError, NotFoundError

ROW = {"user_id": "u", "prompt": "p", "chosen": "a", "rejected": "b"}


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_folder(folder: Path, comparisons: str, items: list[dict[str, Any]] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    items = [{"item_id": i, "prompt": None, "response": f"text {i}"} for i in "abc"] if items is None else items
    write_lines(folder / "items.jsonl", items)
    (folder / "comparisons.csv").write_text(comparisons, encoding="utf-8")
    return folder


def test_inline_rows_share_items_by_content(tmp_path: Path) -> None:
    rows = [ROW, {**ROW, "chosen": "b", "rejected": "c"}, {**ROW, "user_id": "v", "prompt": "q"}]
    data = read_dataset(write_lines(tmp_path / "comparisons.jsonl", rows))
    assert (data.user_ids, len(data.items)) == (["u", "v"], 5)
    assert data.chosen[1] == data.rejected[0]
    assert [item.text for item in data.items] == ["a", "b", "c", "a", "b"]


def test_all_forms_say_the_same(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "csv", "user_id,phase,chosen,rejected\nu,support,a,b\nu,query,b,c\nv,query,c,a\n")
    other = tmp_path / "parquet"
    other.mkdir()
    with gzip.open(other / "items.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write((folder / "items.jsonl").read_text())
    columns = {"user_id": ["u", "u", "v"], "phase": ["support", "query", "query"]}
    pq.write_table(
        pa.table({**columns, "chosen": ["a", "b", "c"], "rejected": ["b", "c", "a"]}), other / "comparisons.parquet"
    )
    rows = [
        {"user_id": u, "phase": p, "prompt": None, "chosen": f"text {c}", "rejected": f"text {r}"}
        for u, p, c, r in (("u", "support", "a", "b"), ("u", "query", "b", "c"), ("v", "query", "c", "a"))
    ]
    inline = write_lines(tmp_path / "any_name.jsonl", rows)
    datasets = [read_dataset(path) for path in (folder, other, inline)]
    assert len({data.sha256 for data in datasets}) == 1
    assert datasets[0].phase.tolist() == [SUPPORT, QUERY, QUERY]


def test_optional_columns_are_read(tmp_path: Path) -> None:
    text = (
        "user_id,chosen,rejected,tie,strength,event_id,created_at\nu,a,b,true,2.5,e1,2026-01-02T03:04:05Z\nu,b,c,,,,\n"
    )
    data = read_dataset(write_folder(tmp_path / "d", text))
    first, second = data.comparisons()
    assert (first.tie, first.strength, first.event_id, first.created_at.year) == (True, 2.5, "e1", 2026)
    assert (second.tie, second.strength) == (False, 1.0)


def test_without_phases_each_user_is_halved_by_ids_not_by_order(tmp_path: Path) -> None:
    rows = [{**ROW, "user_id": u, "chosen": f"a{n}", "event_id": f"{u}-{n}"} for u in ("u", "v") for n in range(7)]
    data = read_dataset(write_lines(tmp_path / "a.jsonl", rows))
    assert [int((data.phase[data.user == user] == SUPPORT).sum()) for user in (0, 1)] == [3, 3]
    backwards = read_dataset(write_lines(tmp_path / "b.jsonl", rows[::-1]))
    support = [{e for e, p in zip(d.event_ids, d.phase, strict=True) if p == SUPPORT} for d in (data, backwards)]
    assert support[0] == support[1]


def test_event_ids_are_derived_from_content(tmp_path: Path) -> None:
    data = read_dataset(write_lines(tmp_path / "a.jsonl", [ROW, ROW, {**ROW, "tie": True}]))
    again = read_dataset(write_lines(tmp_path / "b.jsonl", [ROW, ROW, {**ROW, "tie": True}]))
    assert data.event_ids == again.event_ids
    assert len(set(data.event_ids)) == 3


def test_comparisons_survive_the_round_trip(embedded: Path) -> None:
    data = read_dataset(embedded)
    comparison = next(data.comparisons([5]))
    assert comparison.user_id == data.user_ids[data.user[5]]
    assert np.array_equal(comparison.chosen.embedding, data.items[data.chosen[5]].embedding)  # type: ignore[union-attr]


BAD_LINES = [
    ("not json\n", "line 1: not JSON"),
    (json.dumps(ROW) + "\n{\n", "line 2: not JSON"),
    ("[1]\n", "line 1: expected a JSON object"),
    (json.dumps({"user_id": "u", "chosen": "a"}), "line 1: 'rejected' missing"),
    (json.dumps({**ROW, "phase": "train"}), "line 1: phase must be"),
    (json.dumps({**ROW, "strength": -1}), "line 1: .*strength"),
    (json.dumps({**ROW, "tie": "maybe"}), "line 1: .*tie"),
    (json.dumps({**ROW, "chosen": 3}), "line 1: .*chosen"),
    (json.dumps({**ROW, "chosen": "\ud800"}), "line 1: .*surrogate"),
    (json.dumps({**ROW, "user_id": "x" * 300}), "line 1: .*user_id"),
    (json.dumps({**ROW, "created_at": "2026-01-01T00:00:00"}), "line 1: .*created_at"),
    (json.dumps({**ROW, "chosen": {"embedding": [1, float("nan")]}}), "line 1: .*NaN"),
    (json.dumps({**ROW, "chosen": {"embedding": [1, 2]}, "rejected": {"embedding": [1]}}), "one size"),
    (json.dumps({**ROW, "event_id": "e"}) + "\n" + json.dumps({**ROW, "event_id": "e"}), "'e' appears twice"),
    ("", "holds no comparisons"),
    ("\n\n", "holds no comparisons"),
]


@pytest.mark.parametrize(("text", "message"), BAD_LINES, ids=[message for _, message in BAD_LINES])
def test_bad_lines_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "comparisons.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        read_dataset(path)


@pytest.mark.parametrize("change", [
    {"tie": "maybe"}, {"tie": 2}, {"tie": []}, {"strength": 0}, {"strength": True, "tie": 1}, {"strength": "x"},
    {"chosen": "\ud800"}, {"rejected": "a\0"}, {"prompt": 3}, {"prompt": [{"role": "user"}]}, {"chosen": None},
    {"event_id": ""}, {"event_id": "e" * 256}, {"event_id": "\0"}, {"created_at": "soon"}, {"user_id": None},
    {"strength": 1e9, "tie": True}, {"chosen": {"text": 3}},
])  # fmt: skip
def test_a_row_that_looks_familiar_is_checked_as_the_first_was(tmp_path: Path, change: dict[str, Any]) -> None:
    """Rows like earlier ones are checked by a shorter way, which must find the same."""
    row = {**ROW, "tie": False, "strength": 1, **change}
    outcomes = []
    for before in ([], [ROW, {**ROW, "tie": False, "strength": 1}, {**ROW, "tie": True, "strength": 1.0}]):
        try:
            data = read_dataset(write_lines(tmp_path / "a.jsonl", [*before, row]))
            outcomes.append(str((data.tie[-1], data.strength[-1])))
        except DatasetError as error:
            outcomes.append(str(error).split(": ", 1)[1])
    assert outcomes[0] == outcomes[1]


BAD_TABLES = [
    ("user_id,chosen,rejected\nu,a,zz\n", "line 2: rejected: unknown item id 'zz'"),
    ("user_id,chosen,rejected\nu,a\n", "line 2: 2 columns where the header has 3"),
    ("user_id,chosen\nu,a\n", "line 1: no column rejected; found: user_id, chosen"),
    ("user_id,chosen,rejected\n,a,b\n", "line 2: 'user_id' missing"),
    ("user_id,chosen,rejected\n", "holds no comparisons"),
    ("", "holds no comparisons"),
]


@pytest.mark.parametrize(("text", "message"), BAD_TABLES, ids=[message for _, message in BAD_TABLES])
def test_bad_tables_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_dataset(write_folder(tmp_path / "d", text))


BAD_ITEMS: list[tuple[list[dict[str, Any]], str]] = [
    ([{"response": "x"}], "line 1: 'item_id' is missing"),
    ([{"item_id": "a", "response": "x"}] * 2, "line 2: item id 'a' appears twice"),
    ([{"item_id": "a"}], "line 1: .*give text"),
    ([{"item_id": "a", "embedding": [1.0, float("inf")]}], "line 1: .*NaN or infinity"),
    ([{"item_id": "a", "embedding": [[1.0]]}], "line 1: .*one vector"),
    ([], "holds no items"),
]


@pytest.mark.parametrize(("items", "message"), BAD_ITEMS, ids=[message for _, message in BAD_ITEMS])
def test_bad_items_are_named(tmp_path: Path, items: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_dataset(write_folder(tmp_path / "d", "user_id,chosen,rejected\nu,a,a\n", items))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no data set at"):
        read_dataset(tmp_path / "nothing")
    with pytest.raises(DatasetError, match="must hold one of"):
        read_dataset(tmp_path)
    (tmp_path / "comparisons.txt").write_text("x")
    with pytest.raises(DatasetError, match=r"is none of \.jsonl"):
        read_dataset(tmp_path / "comparisons.txt")
    for name, data, message in (
        ("a.jsonl.gz", b"no gzip at all", "cannot be read"),
        ("b.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 1000)[:-20], "cannot be read|missing"),
        ("c.jsonl", b"\xff\xfe\x00", "not UTF-8"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DatasetError, match=message):
            read_dataset(tmp_path / name)
    folder = write_folder(tmp_path / "d", "")
    with pytest.raises(DatasetError, match="a table names items by id"):
        read_dataset(folder / "comparisons.csv")
    (folder / "comparisons.csv").rename(folder / "comparisons.parquet")
    with pytest.raises(DatasetError, match="cannot be read as Parquet"):
        read_dataset(folder)
    write_folder(folder, "user_id,chosen,rejected\nu,a,b\n")
    (folder / "comparisons.parquet").unlink()
    (folder / "items.jsonl").unlink()
    with pytest.raises(DatasetError, match=r"no items\.jsonl beside it"):
        read_dataset(folder)


@pytest.mark.parametrize("column", ["user_id", "event_id"])
def test_ids_with_too_many_bytes_are_errors_of_their_line(tmp_path: Path, column: str) -> None:
    row = {"user_id": "ada", "prompt": "p", "chosen": "good", "rejected": "bad"}
    rows = [{**row, "event_id": "e1"}, {**row, "event_id": "e2"}]
    rows[1] |= {column: "😀" * 255}
    path = tmp_path / "comparisons.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DatasetError, match=r"line 2: .*at most 765 bytes"):
        read_dataset(path)
