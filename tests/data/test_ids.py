"""Ids in files: what names someone is kept, what names no one is refused with its line."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from mrm_sdk.data.datasets import read_dataset
from mrm_sdk.data.ids import id_text, user_id_text
from mrm_sdk.errors import DatasetError, InvalidInputError

NO_IDS = [float("nan"), float("inf"), 0.5, None, True, {"id": 7}, ["ann"], " ", "", b"ann"]


@pytest.mark.parametrize(
    ("value", "text"),
    [("ann", "ann"), (" ann", " ann"), (7, "7"), (3.0, "3"), (-2.0, "-2"), (Decimal("4.00"), "4"), (1e15, str(10**15)),
     (UUID(int=1), "00000000-0000-0000-0000-000000000001"), ("1.50", "1.50"), ("nan", "nan")],
)  # fmt: skip
def test_ids(value: Any, text: str) -> None:
    assert id_text("item_id", value) == user_id_text(value) == text


def test_whole_numbers_of_a_column_with_gaps() -> None:
    assert user_id_text("3.0") == "3"
    assert id_text("item_id", "3.0") == "3.0"  # a version, perhaps


@pytest.mark.parametrize("value", NO_IDS)
@pytest.mark.parametrize("field", ["user_id", "event_id"])
def test_no_ids(value: Any, field: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=f"{field} must be a text that is not blank or a whole number, not "):
        id_text(field, value)
    if isinstance(value, bytes) or (field == "event_id" and value is None):
        return
    for judged in ({"chosen": "a", "rejected": "b"}, {"response": "a", "rating": 1}):
        rows = [{"user_id": "ann", "prompt": "q", **judged}, {"user_id": "ann", "prompt": "q", **judged, field: value}]
        path = tmp_path / f"{len(judged)}-{next(iter(judged))}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(DatasetError, match=rf"line 2: {field} must be a text that is not blank"):
            read_dataset(path, ratings=True)


def test_numbers_and_whole_floats_are_one_user(tmp_path: Path) -> None:
    path = tmp_path / "comparisons.jsonl"
    rows = [{"user_id": name, "prompt": "q", "chosen": f"a{name}", "rejected": "b"} for name in (1, 1.0, "1", 2.0)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_dataset(path).user_ids == ["1", "2"]
    (tmp_path / "t.csv").write_text("user_id,prompt,chosen,rejected\n3.0,q,a,b\n3,q,c,d\n")
    assert read_dataset(tmp_path / "t.csv", format="trl").user_ids == ["3"]


def test_a_response_is_not_better_than_itself(tmp_path: Path) -> None:
    path = tmp_path / "comparisons.jsonl"
    path.write_text(
        '{"user_id": "u", "chosen": "a", "rejected": "b"}\n{"user_id": "u", "chosen": "a", "rejected": "a"}\n'
    )
    with pytest.raises(DatasetError, match="line 2: chosen and rejected are the same response"):
        read_dataset(path)
