"""Columns that the caller names: found, refused where they are not there, and never mixed up."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrm_sdk.data.datasets import read_dataset
from mrm_sdk.errors import ConfigurationError
from tests.data.readers.test_feedback_tools import rated
from tests.data.readers.test_readers import PRISM, said
from tests.data.test_datasets import ROW, write_folder, write_lines
from tests.data.test_tables import write_table

ROWS = [
    {"annotator": "ann", "question": "q", "better": "a", "worse": "b", "user_id": "account 1", "meta.n": 1},
    {"annotator": "bob", "question": "q", "better": "b", "worse": "a", "user_id": "account 1", "meta.n": 2},
]
NAMES = {"user_id": "annotator", "prompt": "question", "chosen": "better", "rejected": "worse"}


@pytest.mark.parametrize("form", ["csv", "tsv", "parquet", "json", "jsonl"])
def test_names_of_the_caller(tmp_path: Path, form: str) -> None:
    """The file's own column ``user_id`` is then another one, and is not read."""
    data = read_dataset(write_table(tmp_path / f"x.{form}", ROWS), columns=NAMES)
    assert said(data) == [("ann", "q", "a", "b"), ("bob", "q", "b", "a")]
    strength = read_dataset(tmp_path / f"x.{form}", columns={**NAMES, "strength": "meta.n"}).strength
    assert strength.tolist() == [1, 2]


def test_names_can_change_places(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", [ROW])
    assert said(read_dataset(path, columns={"chosen": "rejected", "rejected": "chosen"})) == [("u", "p", "b", "a")]


def test_a_column_that_few_rows_have(tmp_path: Path) -> None:
    rows = [ROW, {**ROW, "prompt": "q", "weight": 3}]
    data = read_dataset(write_lines(tmp_path / "x.jsonl", rows), columns={"strength": "weight"})
    assert data.strength.tolist() == [1, 3]
    rows = [{**ROW, "prompt": str(number)} for number in range(1000)] + rows
    with pytest.raises(ConfigurationError, match="in its first 1000 rows, has no column 'weight' for strength"):
        read_dataset(write_lines(tmp_path / "x.jsonl", rows), columns={"strength": "weight"})


def test_names_in_the_files_of_a_folder(tmp_path: Path) -> None:
    items = [{"id": i, "question": "q", "answer": f"text {i}"} for i in "abc"]
    folder = write_folder(tmp_path / "d", "who,chosen,rejected\nu,a,b\n", items)
    (folder / "ratings.csv").write_text("who,item_id,stars\nu,c,4\n")
    names = {"user_id": "who", "item_id": "id", "prompt": "question", "response": "answer"}
    assert said(read_dataset(folder, columns=names)) == [("u", "q", "text a", "text b")]
    data = read_dataset(folder, columns={**names, "rating": "stars"}, ratings=True)
    assert rated(data) == [("u", "q", "text c", 4.0)]
    with pytest.raises(ConfigurationError, match=r"has no column 'star' for rating. Did you mean 'stars'"):
        read_dataset(folder, columns={**names, "rating": "star"}, ratings=True)


def test_names_for_trl(tmp_path: Path) -> None:
    rows = [{"who": "u", "prompt": "q", "completion": "a", "liked": True}]
    names = {"user_id": "who", "label": "liked"}
    assert rated(read_dataset(write_table(tmp_path / "x.parquet", rows), columns=names)) == [("u", "q", "a", 1.0)]
    chats = [{"who": "u", "good": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
              "bad": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]}]  # fmt: skip
    names = {"user_id": "who", "chosen": "good", "rejected": "bad"}
    assert said(read_dataset(write_lines(tmp_path / "x.jsonl", chats), columns=names)) == [("u", "user: q", "a", "b")]


REFUSED = [
    ({"userid": "user_id"}, "no column 'userid'. Did you mean 'user_id'"),
    ({"weight": "user_id"}, "no column 'weight'. There are: chosen, completion, created_at, "),
    ({"user_id": "anotator"}, "no column 'anotator' for user_id. Did you mean 'annotator'"),
    ({"user_id": "ANNOTATOR"}, "no column 'ANNOTATOR' for user_id. Did you mean 'annotator'"),
    ({"user_id": "zzz"}, "no column 'zzz' for user_id. There are: annotator, question, better, worse"),
    ({"user_id": "annotator", "group": "annotator"}, "'annotator' is named twice"),
    ({"item_id": "user_id"}, "Nothing in .* can be item_id"),
]


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize(("names", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_names_that_are_refused(tmp_path: Path, form: str, names: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_dataset(write_table(tmp_path / f"x.{form}", ROWS), columns={**NAMES, **names})


def test_other_programs_formats_have_names_of_their_own(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "conversations.jsonl", PRISM)
    with pytest.raises(ConfigurationError, match="--column is for our own format and TRL's"):
        read_dataset(path, columns={"user_id": "conversation_id"})
