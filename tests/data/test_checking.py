"""The checkup of a data set: every problem, what is in it, and whether that is enough."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrm_sdk.data.checking import ENOUGH_USERS, check_dataset
from mrm_sdk.errors import ConfigurationError, NotFoundError
from tests.data.readers.test_readers import PRISM
from tests.data.test_datasets import ROW, write_folder, write_lines


def rows(counts: list[int], **more: Any) -> list[dict[str, Any]]:
    """So many comparisons of each user."""
    return [{**ROW, **more, "user_id": f"u{u}", "chosen": f"a{i}"} for u, n in enumerate(counts) for i in range(n)]


def test_what_is_in_it(tmp_path: Path) -> None:
    found = check_dataset(write_lines(tmp_path / "x.jsonl", rows([1, 4, 10, 20, 41])))
    amounts = found.amounts
    assert amounts is not None
    assert (found.problems, amounts.users, amounts.comparisons, amounts.ratings) == ([], 5, 76, 0)
    assert amounts.texts == 42  # a0 to a40, and b
    quantiles = {"min": 1, "p10": 1, "p25": 4, "median": 10, "p75": 20, "p90": 41, "max": 41}
    assert amounts.comparisons_per_user == quantiles
    assert amounts.users_by_shots == {2: 4, 5: 3, 10: 2, 20: 1}
    assert json.loads(json.dumps(found.as_json()))["amounts"]["users_by_shots"] == {"2": 4, "5": 3, "10": 2, "20": 1}


@pytest.mark.parametrize(("users", "comparisons", "enough"), [
    (ENOUGH_USERS, 20, True), (ENOUGH_USERS - 1, 20, False), (ENOUGH_USERS, 19, False)
])  # fmt: skip
def test_enough(tmp_path: Path, users: int, comparisons: int, enough: bool) -> None:
    found = check_dataset(write_lines(tmp_path / "x.jsonl", rows([comparisons] * users)))
    assert found.amounts is not None
    assert (found.amounts.enough, found.as_json()["amounts"]["enough"]) == (enough, enough)


def test_phases_count_as_they_are_stated(tmp_path: Path) -> None:
    stated = [*rows([30], phase="support"), *rows([5], phase="query", prompt="q")]
    found = check_dataset(write_lines(tmp_path / "x.jsonl", stated))
    assert found.amounts is not None
    assert found.amounts.users_by_shots == {2: 1, 5: 1, 10: 0, 20: 0}


def test_all_problems_and_what_is_left(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", [ROW, {**ROW, "chosen": "b"}, {**ROW, "prompt": "q"}, {"user_id": "v"}])
    with path.open("a") as file:
        file.write("{\n")
    found = check_dataset(path)
    assert found.amounts is not None
    assert (found.amounts.comparisons, found.amounts.users) == (2, 1)
    assert [problem.split(":")[0] for problem in found.problems] == [f"{path}, line {n}" for n in (2, 4, 5)]


def test_what_stops_the_reading_comes_last(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "d", "user_id,chosen\nu,a\n", [{"item_id": "a", "response": "x"}, {}])
    found = check_dataset(folder)
    assert found.amounts is None
    assert [problem.split(":")[0].split("/")[-1] for problem in found.problems] == [
        "items.jsonl, line 2",
        "comparisons.csv, line 1",
    ]
    assert found.as_json() == {"problems": found.problems, "amounts": None, "left_out": {}}


def test_ratings_alone_are_judged_by_the_comparisons_they_make(tmp_path: Path) -> None:
    one_prompt = [{"user_id": "u", "prompt": "p", "response": f"a{i}", "rating": i} for i in range(20)]
    found = check_dataset(write_lines(tmp_path / "x.jsonl", one_prompt))
    assert found.amounts is not None
    assert (found.problems, found.amounts.comparisons, found.amounts.ratings) == ([], 0, 20)
    assert found.amounts.ratings_per_user["max"] == 20
    assert found.amounts.users_by_shots == {2: 1, 5: 1, 10: 1, 20: 1}  # 45 comparisons of 10 texts in each half
    found = check_dataset(
        write_lines(tmp_path / "x.jsonl", [{**row, "prompt": f"p{row['rating']}"} for row in one_prompt])
    )
    assert len(found.problems) == 1
    assert "a user must have rated two responses to one prompt differently" in found.problems[0]


def test_ratings_beside_comparisons_are_read_too(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "d", "user_id,chosen,rejected\nu,a,b\n")
    (folder / "ratings.csv").write_text("user_id,item_id,stars\nu,a,5\nu,zz,5\n")
    found = check_dataset(folder, columns={"rating": "stars"})
    assert found.amounts is not None
    assert (found.amounts.comparisons, found.amounts.ratings) == (1, 1)
    assert [problem.split("/")[-1] for problem in found.problems] == [
        "ratings.csv, line 3: item_id: unknown item id 'zz', which the items file lacks"
    ]


def test_embeddings_are_looked_through(tmp_path: Path) -> None:
    items = [{"item_id": i} for i in range(10_000)]
    folder = write_folder(tmp_path / "d", "user_id,chosen,rejected\nu,0,1\n", items)
    embeddings = np.ones((10_000, 2), np.float16)
    embeddings[[3, 9999], 1] = np.nan, np.inf
    np.save(folder / "embeddings.npy", embeddings)
    assert check_dataset(folder).problems == [
        f"embeddings.npy, row {row} (counted from 0): NaN or infinity" for row in (3, 9999)
    ]


def test_records_of_other_programs(tmp_path: Path) -> None:
    found = check_dataset(write_lines(tmp_path / "conversations.jsonl", PRISM))
    assert found.problems == []
    assert found.reading is not None
    assert sum(found.as_json()["left_out"].values()) == found.reading.read - found.reading.used == 4


def test_a_wrong_call_is_no_problem_of_the_data(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        check_dataset(tmp_path / "nothing")
    with pytest.raises(ConfigurationError, match="Did you mean 'prompt'"):
        check_dataset(write_lines(tmp_path / "x.jsonl", [ROW]), columns={"prompt": "promt"})
