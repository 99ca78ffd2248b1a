"""Tables without types, as other programs write them: a cell is read as its column means it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from mrm_sdk.data.datasets import Dataset, read_dataset
from mrm_sdk.data.readers.fields import need, number_of
from mrm_sdk.data.readers.source import Cell
from mrm_sdk.errors import DatasetError, InvalidInputError
from tests.data.readers.test_feedback_tools import rated
from tests.data.readers.test_readers import counted, said
from tests.data.test_datasets import write_folder, write_lines

SIDES = ["user_id", "prompt", "chosen", "rejected"]


def read(path: Path, header: list[str], *rows: list[str], form: str = "trl") -> Dataset:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return read_dataset(path, format=form)


def chat(role: str, text: str) -> str:
    return json.dumps([{"role": role, "content": text}])


def test_chats_and_lists(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    data = read(path, SIDES, ["ann", chat("user", "q"), chat("assistant", "a"), chat("assistant", "b")])
    assert [(item.prompt, item.text) for item in data.items] == [("user: q", "a"), ("user: q", "b")]
    data = read(path, SIDES, ["ann", "q", "a", '["b", "c"]'], ["ann", "q", '["no chat"', "b"])
    assert said(data) == [("ann", "q", "a", "b"), ("ann", "q", "a", "c"), ("ann", "q", '["no chat"', "b")]


def test_numbers_and_booleans(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    assert read(path, [*SIDES, "margin"], ["ann", "q", "a", "b", "1.5"]).strength.tolist() == [1.5]
    rows = [["ann", "q", f"a{number}", label] for number, label in enumerate(("True", "false", "1", "0", "YES"))]
    data = read(path, ["user_id", "prompt", "completion", "label"], *rows)
    assert [row[3] for row in rated(data)] == [1, -1, 1, -1, 1]
    with pytest.raises(DatasetError, match="line 2: 'label' must be bool, not str"):
        read(path, ["user_id", "prompt", "completion", "label"], ["ann", "q", "a", "perhaps"])
    header = ["prompt", "response_1", "response_2", "response_1_m", "response_2_m"]
    assert counted(read(path, header, ["q", "a", "b", "0.1", "0.9"], form="personalllm"))[:2] == (1, 1)


def test_texts_of_other_files_stay(tmp_path: Path) -> None:
    """A text of JSON Lines has a type: it is a text, also where it looks like a list."""
    row = {"user_id": "ann", "prompt": "Two letters as JSON?", "chosen": '["b", "c"]', "rejected": '{"b": "c"}'}
    data = read_dataset(write_lines(tmp_path / "x.jsonl", [row]), format="trl")
    assert said(data) == [("ann", "Two letters as JSON?", '["b", "c"]', '{"b": "c"}')]
    with pytest.raises(InvalidInputError, match="'x' must be float, not str"):
        need({"x": "1.5"}, "x", float)


@pytest.mark.parametrize(
    ("value", "number"), [(Cell("1.5"), 1.5), (2, 2.0), (Cell("x"), None), ("1.5", None), (True, None)]
)
def test_number_of(value: Any, number: float | None) -> None:
    assert number_of(value) == number


def test_cells_of_any_length(tmp_path: Path) -> None:
    data = read(tmp_path / "x.csv", SIDES, ["ann", "q", "a" * 1_000_000, "b"])
    assert [len(item.text or "") for item in data.items] == [1_000_000, 1]


def test_a_header_that_names_a_column_twice(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "d", "user_id,chosen,rejected,chosen\nu,a,b,c\n")
    with pytest.raises(DatasetError, match=r"comparisons\.csv, line 1: the header names 'chosen' twice"):
        read_dataset(folder)


def test_one_object_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(
        json.dumps({"user_id": "u", "prompt": "q", "chosen": "a", "rejected": "b"}, indent=2)
    )
    assert said(read_dataset(tmp_path / "x.json", format="trl")) == [("u", "q", "a", "b")]
