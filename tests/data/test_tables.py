"""Tables of texts in every form, without naming a format; delimiters, headers and what is not clear in them."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mrm_sdk.data.datasets import read_dataset
from mrm_sdk.errors import DatasetError
from tests.data.readers.test_feedback_tools import rated
from tests.data.readers.test_readers import said
from tests.data.test_datasets import write_folder, write_lines

COMPARED = [
    {"user_id": "ann", "prompt": "What, then?", "chosen": 'He said "a"', "rejected": "b\nc"},
    {"user_id": "bob", "prompt": "Où?", "chosen": "ici", "rejected": "là; non"},
]
FORMS = ["csv", "csv.gz", "tsv", "tsv.gz", "parquet", "json", "json.gz", "jsonl", "jsonl.gz", "ndjson", "ndjson.gz"]


def write_table(path: Path, rows: list[dict[str, Any]], delimiter: str | None = None) -> Path:
    """Writes rows in the form that the end of the name says."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8", newline="") as file:
        if name.endswith((".csv", ".tsv")):
            table = csv.DictWriter(file, rows[0], delimiter=delimiter or ("\t" if name.endswith(".tsv") else ","))
            table.writeheader()
            table.writerows(rows)
        elif name.endswith(".json"):
            json.dump(rows, file)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_comparisons_in_every_form(tmp_path: Path, form: str) -> None:
    data = read_dataset(write_table(tmp_path / f"judged.{form}", COMPARED))
    assert said(data) == [tuple(row.values()) for row in COMPARED]
    assert data.sha256 == read_dataset(write_lines(tmp_path / "other.jsonl", COMPARED)).sha256


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("column", ["rating", "thumb"])
def test_ratings_in_every_form(tmp_path: Path, form: str, column: str) -> None:
    values = {"rating": (4.5, 1.0), "thumb": ("up", "down")}[column]
    rows = [{"user_id": "ann", "prompt": "q", "response": f"a{i}", column: value} for i, value in enumerate(values)]
    data = read_dataset(write_table(tmp_path / f"judged.{form}", rows))
    expected = {"rating": (4.5, 1.0), "thumb": (1.0, -1.0)}[column]
    assert rated(data) == [("ann", "q", f"a{i}", value) for i, value in enumerate(expected)]


@pytest.mark.parametrize("form", ["csv", "parquet", "json"])
def test_rankings_in_tables(tmp_path: Path, form: str) -> None:
    ranking: Any = ["a", "b", "c"]
    ranking = json.dumps(ranking) if form == "csv" else ranking
    data = read_dataset(write_table(tmp_path / f"x.{form}", [{"user_id": "u", "prompt": "q", "ranking": ranking}]))
    assert said(data) == [("u", "q", "a", "b"), ("u", "q", "a", "c"), ("u", "q", "b", "c")]


@pytest.mark.parametrize("form", ["csv", "tsv", "parquet", "json", "ndjson"])
def test_folders_of_every_form(tmp_path: Path, form: str) -> None:
    """A table of texts needs no items; one that names items by id has them in any form."""
    write_table(tmp_path / f"comparisons.{form}", COMPARED)
    assert said(read_dataset(tmp_path)) == [tuple(row.values()) for row in COMPARED]
    by_id = [{"user_id": "u", "chosen": "i", "rejected": "j"}]
    write_table(tmp_path / f"comparisons.{form}", by_id)
    write_table(tmp_path / f"items.{form}", [{"item_id": i, "prompt": "q", "response": f"text {i}"} for i in "ij"])
    assert said(read_dataset(tmp_path)) == [("u", "q", "text i", "text j")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("form", ["csv", "tsv"])
def test_other_delimiters_are_seen_in_the_header(tmp_path: Path, form: str, delimiter: str) -> None:
    data = read_dataset(write_table(tmp_path / f"x.{form}", COMPARED, delimiter))
    assert said(data) == [tuple(row.values()) for row in COMPARED]


@pytest.mark.parametrize("header", [
    "User_ID,Prompt,Chosen,Rejected", "user id, prompt , chosen,rejected", "USER-ID,PROMPT,CHOSEN,REJECTED",
    "userId,Prompt,chosen,Rejected", "\ufeffuser_id,prompt,chosen,rejected",
])  # fmt: skip
def test_headers_alike(tmp_path: Path, header: str) -> None:
    (tmp_path / "x.csv").write_text(f"{header}\nann,q,a,b\n", encoding="utf-8")
    assert said(read_dataset(tmp_path / "x.csv")) == [("ann", "q", "a", "b")]


def test_a_space_after_each_comma_belongs_to_it(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('user_id, prompt, chosen, rejected\nann, "q, r", "a", b\n')
    assert said(read_dataset(tmp_path / "x.csv")) == [("ann", "q, r", "a", "b")]


def test_keys_of_json_alike(tmp_path: Path) -> None:
    row = {"User_ID": "ann", "Prompt": "q", "Chosen": "a", "Rejected": "b", "Chosen by": "x"}
    assert said(read_dataset(write_table(tmp_path / "x.jsonl", [row]))) == [("ann", "q", "a", "b")]
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "x.parquet")
    assert said(read_dataset(tmp_path / "x.parquet")) == [("ann", "q", "a", "b")]


def test_chats_in_tables_are_recognised(tmp_path: Path) -> None:
    sides = [[{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}] for answer in "ab"]
    row: dict[str, Any] = {"User": "ann", "Chosen": sides[0], "Rejected": sides[1]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "x.parquet")
    cells = {name: value if name == "User" else json.dumps(value) for name, value in row.items()}
    for path in (tmp_path / "x.parquet", write_table(tmp_path / "x.csv", [cells])):
        assert said(read_dataset(path, columns={"user_id": "User"})) == [("ann", "user: q", "a", "b")]


UNCLEAR = [
    ("user_id prompt chosen rejected\n", "no column user_id, prompt, chosen, rejected; found: user_id prompt chosen "
     "rejected. The header must be parted by commas, semicolons, tabs or .*--column user_id=NAME"),
    ("who,prompt,chosen,rejected\nann,q,a,b\n", "line 1: no column user_id; found: who, .*--column user_id=NAME"),
    ("user_id,prompt,response\nann,q,a\n", "no column rating or thumb; found: .*--column rating=NAME"),
    ("user_id,prompt,rating\nann,q,1\n", "no column response; found: user_id, prompt, rating.*--column response=NAME"),
    ("user_id,chosen,rejected\nann,a,b\n", "no column prompt; .*no items.jsonl beside it; .*empty column prompt"),
    ("User ID,user-id,prompt,chosen,rejected\nann,ann,q,a,b\n", "'User ID' and 'user-id' could each be user_id. "
     "Say which: --column user_id='User ID'"),
    ("user_id,prompt,chosen,rejected\nann,q,\"a,b\nann,q,a,b\n", "line 2: 3 columns where the header has 4; it ends 1 "
     "lines later: is a quote left open"),
    ("user_id;prompt;chosen,rejected\nann;q;a,b\n", "no column user_id, prompt, chosen; found: user_id;prompt;chosen, "
     "rejected. The header must be parted by"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), UNCLEAR, ids=[text.split("\n")[0] for text, _ in UNCLEAR])
def test_what_is_not_clear_is_said_with_a_way_out(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_dataset(tmp_path / "x.csv")


def test_columns_without_meaning_may_be_called_alike(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(",user_id,prompt,chosen,rejected,note,note,\n0,ann,q,a,b,1,2,3\n")
    assert said(read_dataset(tmp_path / "x.csv")) == [("ann", "q", "a", "b")]


def test_no_prompts_are_an_empty_column(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("user_id,prompt,chosen,rejected\nann,,a,b\n")
    assert said(read_dataset(tmp_path / "x.csv")) == [("ann", None, "a", "b")]


def test_a_table_of_ids_is_never_read_as_texts(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "d", "user_id,prompt,chosen,rejected\nu,p,a,b\n")
    for name in ("comparisons.csv", "comparisons.jsonl"):
        (folder / "comparisons.csv").replace(folder / name)
        with pytest.raises(DatasetError, match="a table names items by id; give its folder"):
            read_dataset(folder / name)
        (folder / name).replace(folder / "comparisons.csv")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_utf_16(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "x.csv").write_bytes("user_id,prompt,chosen,rejected\nann,q,a,b\n".encode(encoding))
    with pytest.raises(DatasetError, match=r"UTF-16 text, not UTF-8. Save it as UTF-8|no column user_id"):
        read_dataset(tmp_path / "x.csv")
