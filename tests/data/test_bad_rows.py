"""Rows that are wrong: all are named in order, and what is left is the same as if they had never been there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrm_sdk.data.datasets import Dataset, read_dataset
from mrm_sdk.errors import DatasetError
from tests.data.readers.test_feedback_tools import rated
from tests.data.readers.test_readers import said, summary
from tests.data.test_datasets import ROW, write_folder, write_lines
from tests.data.test_tables import write_table


def skip(path: Path, **options: Any) -> tuple[Dataset, list[str]]:
    """The data set without its bad rows, and what was said of them, without the path."""
    told: list[str] = []
    data = read_dataset(path, on_bad_row=lambda problem: told.append(str(problem)), **options)
    return data, [problem.removeprefix(f"{path}, ").removeprefix(f"{path}/") for problem in told]


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {**ROW, "user_id": f"u{i % 3}", "chosen": f"a{i}", "rejected": f"b{i}", "event_id": str(i)}
        for i in range(count)
    ]


BAD: list[Any] = [
    {**ROW, "user_id": "stranger", "chosen": "new", "strength": -1},
    {**ROW, "user_id": "stranger", "chosen": "same", "rejected": "same"},
    {"user_id": "stranger", "prompt": "new", "ranking": ["r1", "r2", 3]},
    {"user_id": "stranger", "prompt": "new", "ranking": ["r1", "r2", "r3"], "event_id": "e" * 255},
    {"user_id": "stranger", "prompt": "new", "response": "r", "rating": 1, "created_at": "soon"},
    {"user_id": "stranger", "prompt": "new", "response": "r", "rating": 1, "phase": "neither"},
    {**ROW, "chosen": {"text": "vector", "embedding": [1, 2]}, "event_id": "with vector"},
    {**ROW, "user_id": "stranger", "chosen": "again", "event_id": "2"},
    [1],
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: str(bad)[-60:])
def test_nothing_of_a_bad_row_stays(tmp_path: Path, bad: Any) -> None:
    good = rows(8)
    clean = read_dataset(write_lines(tmp_path / "clean.jsonl", good))
    data, told = skip(write_lines(tmp_path / "x.jsonl", [*good[:4], bad, *good[4:]]))
    assert [problem.split(":")[0] for problem in told] == ["line 5"]
    assert (data.sha256, data.user_ids, data.event_ids) == (clean.sha256, clean.user_ids, clean.event_ids)
    assert [item.key for item in data.items] == [item.key for item in clean.items]
    assert (data.phase.tolist(), len(data.ratings or ())) == (clean.phase.tolist(), 0)


def test_a_bad_first_row_does_not_set_the_size_of_embeddings(tmp_path: Path) -> None:
    vector = [{"embedding": [0.5, 1]}, {"embedding": [1, 0]}]
    good = {"user_id": "u", "chosen": vector[0], "rejected": vector[1]}
    wrong = {"user_id": "u", "chosen": {"embedding": [1, 2, 3]}, "rejected": {"embedding": [1, 2, 3]}}
    data, told = skip(write_lines(tmp_path / "x.jsonl", [wrong, good]))
    assert (data.dimension, len(told)) == (2, 1)


@pytest.mark.parametrize("form", ["csv", "tsv", "json", "jsonl"])
def test_every_problem_is_named_in_order(tmp_path: Path, form: str) -> None:
    path = write_table(tmp_path / f"x.{form}", rows(6))
    text = path.read_bytes().decode()
    lines = text.replace("}, {", "},\n{").splitlines(keepends=True)
    for number in (2, 4):
        lines[number] = lines[number].replace("a", "\udcff" if form != "json" else "b", 1)
        lines[number] = lines[number].replace("u", " ", 1) if form == "json" else lines[number]
    path.write_bytes("".join(lines).encode(errors="surrogateescape"))
    data, told = skip(path)
    assert len(data) == 4
    unit, first = ("element", 3) if form == "json" else ("line", 3)
    assert [problem.split(":")[0] for problem in told] == [f"{unit} {first}", f"{unit} {first + 2}"]
    if form != "json":
        assert all("not UTF-8 text" in problem for problem in told)
    with pytest.raises(DatasetError, match=f"{unit} {first}: "):
        read_dataset(path)


def test_cells_that_cannot_be_parsed(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b'user_id,prompt,chosen,rejected\nu,p,a,b\nu,p\n\nu,"p\nq",a,a\nu,p,f,g\nu,p,"a,b\n')
    data, told = skip(path)
    assert said(data) == [("u", "p", "a", "b"), ("u", "p", "f", "g")]
    assert told == [
        "line 3: 2 columns where the header has 4",
        "line 5: chosen and rejected are the same response, so nothing is compared",
        "line 8: 3 columns where the header has 4",
    ]


def test_rankings_are_left_out_as_a_whole(tmp_path: Path) -> None:
    ranking = {"user_id": "u", "prompt": "p", "ranking": ["a", "b", "c"], "event_id": "r"}
    taken = {**ROW, "prompt": "q", "event_id": "r#2"}
    data, told = skip(write_lines(tmp_path / "x.jsonl", [taken, ranking, {**ranking, "event_id": "s"}]))
    assert told == ["line 2: event id 'r#2' appears twice"]
    assert data.event_ids == ["r#2", "s", "s#1", "s#2"]


def test_an_id_of_a_rating_and_of_a_comparison(tmp_path: Path) -> None:
    rating = {"user_id": "u", "prompt": "p", "response": "a", "rating": 1, "event_id": "e"}
    data, told = skip(
        write_lines(tmp_path / "x.jsonl", [rating, {**ROW, "event_id": "e"}, {**rating, "event_id": "f"}])
    )
    assert told == ["line 2: event id 'e' appears twice"]
    assert rated(data) == [("u", "p", "a", 1), ("u", "p", "a", 1)]


def test_derived_ids_never_meet_stated_ones(tmp_path: Path) -> None:
    derived = read_dataset(write_lines(tmp_path / "x.jsonl", [ROW])).event_ids[0]
    with pytest.raises(DatasetError, match=f"event id '{derived}' appears twice"):
        read_dataset(write_lines(tmp_path / "x.jsonl", [ROW, {**ROW, "prompt": "q", "event_id": derived}]))


def test_items_and_what_names_them(tmp_path: Path) -> None:
    items = [{"item_id": "a", "response": "x"}, {"item_id": "b"}, {"item_id": "a", "response": "y"}, "no object",
             {"item_id": "c", "response": "z"}, {"item_id": "d", "embedding": [1.0]}]  # fmt: skip
    folder = write_folder(tmp_path / "d", "user_id,chosen,rejected\nu,a,b\nu,a,c\nu,d,a\n", items)
    data, told = skip(folder)
    assert said(data) == [("u", None, "x", "z")]
    places = [":".join(problem.split(":")[:1]) for problem in told]
    assert places == [f"items.jsonl, line {n}" for n in (2, 3, 4, 6)] + [f"comparisons.csv, line {n}" for n in (2, 4)]


def test_beside_mapped_embeddings_no_item_can_be_left_out(tmp_path: Path) -> None:
    items = [{"item_id": "a"}, {"item_id": None}, {"item_id": "c"}]
    folder = write_folder(tmp_path / "d", "user_id,chosen,rejected\nu,a,c\n", items)
    np.save(folder / "embeddings.npy", np.eye(3, dtype=np.float32))
    told: list[str] = []
    with pytest.raises(DatasetError, match=r"1 bad line.* row i of embeddings.npy belongs to line i"):
        read_dataset(folder, on_bad_row=lambda problem: told.append(str(problem)))
    assert len(told) == 1


def test_records_of_other_programs(tmp_path: Path) -> None:
    lines = [summary(), summary(choice=5), summary(None), {**summary(), "worker": "x" * 300}]
    path = write_lines(tmp_path / "comparisons.jsonl", lines)
    with path.open("a") as file:
        file.write("no json\n" + json.dumps(summary(0)) + "\n")
    data, told = skip(path)
    assert [problem.split(":")[0] for problem in told] == ["line 2", "line 4", "line 5"]
    assert data.reading is not None
    assert (data.reading.read, data.reading.used, len(data)) == (3, 2, 2)


def test_what_is_wrong_with_a_whole_file_still_stops(tmp_path: Path) -> None:
    told: list[DatasetError] = []
    with pytest.raises(DatasetError, match="holds no comparisons"):
        read_dataset(write_lines(tmp_path / "x.jsonl", [[1], [2]]), on_bad_row=told.append)
    assert len(told) == 2
    (tmp_path / "x.csv").write_text("user_id,prompt\nu,p\n")
    with pytest.raises(DatasetError, match="no column chosen, rejected"):
        read_dataset(tmp_path / "x.csv", on_bad_row=told.append)
    assert len(told) == 2


def test_errors_of_the_caller_come_through(tmp_path: Path) -> None:
    """As where the reader of a pipe has gone: it is not an error of the file."""
    for form in ("jsonl", "csv", "parquet"):
        path = write_table(tmp_path / f"x.{form}", [ROW, {**ROW, "user_id": " "}])

        def gone(_: DatasetError) -> None:
            raise BrokenPipeError

        with pytest.raises(BrokenPipeError):
            read_dataset(path, on_bad_row=gone)


def test_judgements_of_tools_that_trace(tmp_path: Path) -> None:
    traces = [{"id": "t", "userId": "u", "input": "q", "output": "a"}]
    score = {"traceId": "t", "name": "n", "dataType": "NUMERIC"}
    write_lines(tmp_path / "traces.jsonl", traces)
    write_lines(tmp_path / "scores.jsonl", [{**score, "value": "high"}, {**score, "value": 2}])
    data, told = skip(tmp_path)
    assert [problem.split(":")[0] for problem in told] == ["scores.jsonl, line 1"]
    assert rated(data) == [("u", "q", "a", 2.0)]
    folder = tmp_path / "langsmith"
    folder.mkdir()
    write_lines(folder / "runs.jsonl", [{"id": "r", "inputs": "q", "outputs": "a"}])
    judged = {"key": "k", "score": 1, "feedback_source": {"user_id": "u"}}
    write_lines(folder / "feedback.jsonl", [{**judged, "run_id": 7}, {**judged, "run_id": "r"}])
    data, told = skip(folder)
    assert [problem.split(":")[0] for problem in told] == ["feedback.jsonl, line 1"]
    assert rated(data) == [("u", "q", "a", 1.0)]
