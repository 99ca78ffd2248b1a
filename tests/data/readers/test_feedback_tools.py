"""Exports of labelling and tracing tools in their real shapes, with made-up content: exact rows, counts and reasons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mrm_sdk.data.datasets import Dataset, read_dataset
from mrm_sdk.data.readers import recognise
from mrm_sdk.errors import DatasetError
from tests.data.readers.test_readers import counted, said
from tests.data.test_datasets import write_lines


def rated(data: Dataset) -> list[tuple[str, str | None, str | None, float]]:
    """User, prompt, text and value of each rating."""
    assert data.ratings is not None
    columns = zip(data.ratings.user, data.ratings.item, data.ratings.value, strict=True)
    return [(data.user_ids[u], data.items[i].prompt, data.items[i].text, float(value)) for u, i, value in columns]


def record(question: str, values: list[Any], users: list[Any], status: list[str] | None = None) -> dict[str, Any]:
    lists = {"": values, ".users": users, ".status": status or ["submitted"] * len(values)}
    fields = {"id": "1", "status": "completed", "_server_id": "s", "prompt": "p", "response_1": "a", "response_2": "b"}
    return fields | {f"{question}.responses{end}": value for end, value in lists.items()}


def test_argilla_labels_and_rankings(tmp_path: Path) -> None:
    rows = [
        record("better", ["response_1", "response-2", "both", None], ["u", "v", "w", "x"]),
        record("better", ["response_2", "response_1"], ["u", "v"], ["draft", "discarded"]),
        record("better", [["response_2", "response_1"], ["response_1", "nothing"]], ["u", "v"]),
        record("better", [[{"value": "response_1", "rank": 1}, {"value": "response_2", "rank": 1}]], ["u"]),
        record("better", ["good"], ["u"]),
    ]
    path = write_lines(tmp_path / "records.jsonl", rows)
    assert recognise(path) == "argilla"
    data = read_dataset(path)
    assert said(data) == [("u", "p", "a", "b"), ("v", "p", "b", "a"), ("u", "p", "b", "a")]
    assert counted(data) == (10, 3, {
        "a tie, and the record does not say which answers it is about": 1,
        "no response": 1,
        "the response is not submitted: draft": 1,
        "the response is not submitted: discarded": 1,
        "the ranking does not name two or more different answers of the record": 1,
        "the ranking has ties or is out of order": 1,
        "the label does not name one of several answers of the record": 1,
    })  # fmt: skip


def test_argilla_numbers_rate_the_only_answer(tmp_path: Path) -> None:
    rows = [{**record("stars", [4, 2], ["u", "v"]), "response": "text"}, record("stars", [5], ["u"])]
    data = read_dataset(write_lines(tmp_path / "a.jsonl", rows))
    assert rated(data) == [("u", "p", "text", 4.0), ("v", "p", "text", 2.0)]
    assert counted(data)[:2] == (3, 2)
    several = write_lines(tmp_path / "b.jsonl", [rows[0] | record("better", ["response_1"], ["u"])])
    with pytest.raises(
        DatasetError, match=r"line 1: expected one question .* there are: stars, better. Name one as --format"
    ):
        read_dataset(several)
    assert said(read_dataset(several, format="argilla:better")) == [("u", "p", "a", "b")]
    with pytest.raises(DatasetError, match="a question 'none' "):
        read_dataset(several, format="argilla:none")
    with pytest.raises(DatasetError, match="line 1: the lists of 'q' differ in length"):
        read_dataset(write_lines(tmp_path / "c.jsonl", [record("q", [1], ["u", "v"])]))


def task(number: int, *annotations: dict[str, Any], **data: str) -> dict[str, Any]:
    data = data or {"prompt": "p", "answer1": "a", "answer2": "b"}
    return {"id": number, "data": data, "annotations": list(annotations), "predictions": []}


def pairwise(selected: str, user: Any = 7, to_name: str = "answer1,answer2", **more: Any) -> dict[str, Any]:
    value = {"selected": selected}
    result = {"from_name": "pw", "to_name": to_name, "type": "pairwise", "value": value}
    return {"completed_by": user, "was_cancelled": False, "result": [result], **more}


def test_label_studio(tmp_path: Path) -> None:
    tasks = [
        task(1, pairwise("left"), pairwise("right", {"id": 3, "email": "e@example.org"})),
        task(2, pairwise("right", to_name="t1,t2"), pairwise("left", to_name="answer2,answer1")),
        task(3, pairwise("left", was_cancelled=True), pairwise("left", None), pairwise("none")),
        task(3, pairwise("left", result=[])),
        task(4, pairwise("left", to_name="x,y"), x="same", y="same"),
    ]  # fmt: skip
    (tmp_path / "project-1.json").write_text(json.dumps(tasks))
    data = read_dataset(tmp_path / "project-1.json")
    assert said(data) == [
        ("7", "p", "a", "b"), ("e@example.org", "p", "b", "a"), ("7", "p", "b", "a"), ("7", "p", "b", "a"),
    ]  # fmt: skip
    assert counted(data) == (9, 4, {
        "the annotation was cancelled": 1, "the annotator is not known": 1, "neither left nor right is selected": 1,
        "the annotation holds no pairwise result": 1, "both texts are the same": 1,
    })  # fmt: skip
    unclear = write_lines(tmp_path / "b.jsonl", [task(1, pairwise("left", to_name="l,r"), a="1", b="2", c="3")])
    with pytest.raises(DatasetError, match=r"line 1: the record does not say which two texts .*\(a, b, c\)"):
        read_dataset(unclear)


def feedback(run: str, score: Any, key: str = "better", **more: Any) -> dict[str, Any]:
    return {"id": run + key, "run_id": run, "key": key, "score": score, "value": None, "comment": None, **more}


def by(user: str | None, kind: str = "app") -> dict[str, Any]:
    return {"feedback_source": {"type": kind, "user_id": user, "metadata": None}}


def run(name: str, output: Any, asked: str = "q", **more: Any) -> dict[str, Any]:
    return {"id": name, "inputs": {"question": asked}, "outputs": output, **more}


RUNS = [
    run("r1", {"output": "one"}),
    run("r2", {"messages": [{"role": "assistant", "content": "two"}]}),
    run("r3", {"generations": [{"text": "three"}]}, extra={"metadata": {"user_id": "end"}}),
    run("r4", {"output": "four"}, asked="other"),
    run("r5", {"a": 1, "b": 2}),
]


def test_langsmith(tmp_path: Path) -> None:
    group = {"comparative_experiment_id": "x", "feedback_group_id": "g1"}
    rows = [
        feedback("r1", 0, **group, **by("ann")), feedback("r2", 1, **group, **by("ann")),
        feedback("r1", 1, feedback_group_id="g2", **by("bob")), feedback("r3", 1, feedback_group_id="g2", **by("bob")),
        feedback("r1", 1, comparative_experiment_id="y", **by("cy")),
        feedback("r2", 0, comparative_experiment_id="y", **by("cy")),
        feedback("r1", 1, feedback_group_id="g3", **by("ann")), feedback("r4", 0, feedback_group_id="g3", **by("ann")),
        feedback("r1", 1, feedback_group_id="g4", **by("ann")),
        feedback("r3", 0.5), feedback("r1", True, **by("ann")),
        feedback("r1", 1), feedback("r1", None, **by("ann")), feedback("r9", 1, **by("ann")),
        feedback("r5", 1, **by("ann")), feedback("r1", 1, **by(None, "model")),
        feedback("r1", 1, key="tone", **by("ann")),
    ]  # fmt: skip
    rows = [{**row, "id": number} for number, row in enumerate(rows)]
    write_lines(tmp_path / "feedback.jsonl", rows)
    with pytest.raises(DatasetError, match=r"holds no table 'runs'. LangSmith's feedback holds no texts: put the runs"):
        read_dataset(tmp_path, format="langsmith")
    write_lines(tmp_path / "runs.jsonl", RUNS)
    with pytest.raises(DatasetError, match="scores called better, tone; name one, as --format langsmith:NAME"):
        read_dataset(tmp_path)
    data = read_dataset(tmp_path, format="langsmith:better")
    assert said(data) == [("ann", "q", "two", "one"), ("bob", "q", "one", "three"), ("cy", "q", "one", "two")]
    assert data.tie.tolist() == [False, True, False]
    assert rated(data) == [("end", "q", "three", 0.5), ("ann", "q", "one", 1.0)]
    assert counted(data) == (13, 5, {
        "the runs compared have different inputs": 1, "a pairwise judgement with only one run": 1,
        "the user is not known": 1, "the feedback has no score": 1, "its run is not in runs.jsonl": 1,
        "no answer is found in the run's outputs": 1, "a model judged": 1, "feedback with another key": 1,
    })  # fmt: skip
    write_lines(tmp_path / "feedback.jsonl", [{"key": "better", "score": 1}])
    with pytest.raises(DatasetError, match="line 1: 'run_id' missing"):
        read_dataset(tmp_path)


def score(trace: str, value: Any, kind: str = "NUMERIC", name: str = "liked", **more: Any) -> dict[str, Any]:
    return {"name": name, "value": value, "traceId": trace, "dataType": kind, "comment": None, **more}


def test_langfuse(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    traces = [
        {"id": "t1", "userId": "ann", "input": {"messages": chat}, "output": {"role": "assistant", "content": "one"}},
        {"id": "t2", "userId": "bob", "input": '{"prompt": "p"}', "output": "two"},
        {"id": "t3", "userId": None, "input": "p", "output": "three"},
        {"id": "t4", "userId": "bob", "input": "p", "output": None},
    ]
    scores = [
        score("t1", 0.25, id="s1"), score("t1", 0.75, id="s1"), score("t2", 1, "BOOLEAN"), score("t2", 0, "BOOLEAN"),
        score("t2", "better two", "CORRECTION"), score("t2", "two", "CORRECTION"), score("t2", "fine", "CATEGORICAL"),
        score("t3", 1), score("t4", 1), score("t9", 1), score("t1", 1, source="EVAL"), score("t1", 1, name="cost"),
    ]  # fmt: skip
    write_lines(tmp_path / "scores.jsonl", scores)
    with pytest.raises(DatasetError, match=r"holds no table 'traces'. Langfuse's scores hold neither texts nor users"):
        read_dataset(tmp_path, format="langfuse")
    write_lines(tmp_path / "traces.jsonl", traces)
    assert recognise(tmp_path) == "langfuse"
    data = read_dataset(tmp_path, format="langfuse:liked")
    assert rated(data) == [
        ("ann", "system: s\nuser: q", "one", 0.75), ("bob", "p", "two", 1.0), ("bob", "p", "two", -1.0),
    ]  # fmt: skip
    assert said(data) == [("bob", "p", "better two", "two")]
    assert counted(data) == (12, 4, {
        "a later score has the same id": 1, "the correction changes nothing": 1,
        "the score is CATEGORICAL, and which category is better is not stated": 1, "the trace has no userId": 1,
        "no answer is found in the trace's output": 1, "its trace is not in traces.jsonl": 1, "a model judged": 1,
        "a score of another name": 1,
    })  # fmt: skip
    write_lines(tmp_path / "scores.jsonl", [score("t2", "high")])
    with pytest.raises(DatasetError, match="line 1: 'value' must be bool or int or float, not str"):
        read_dataset(tmp_path)
    write_lines(tmp_path / "scores.jsonl", [score("t9", 1)])
    with pytest.raises(DatasetError, match=r"gives no comparisons. 1 records read, 0 used; 1 left out: its trace"):
        read_dataset(tmp_path)
