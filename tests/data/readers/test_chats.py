"""Prompts and answers in the forms that programs write: each is read as what it says, and no two questions as one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mrm_sdk.data.datasets import read_dataset
from mrm_sdk.data.readers.chats import answer_of, chat_of, prompt_of, unpacked
from mrm_sdk.errors import DatasetError
from mrm_sdk.schemas.items import prompt_text
from tests.data.readers.test_feedback_tools import by, feedback, rated, score
from tests.data.readers.test_readers import counted, said
from tests.data.test_datasets import write_lines

USER = "user: "


def constructor(name: str, content: Any, **more: Any) -> dict[str, Any]:
    path = ["langchain", "schema", "messages", name]
    return {"lc": 1, "type": "constructor", "id": path, "kwargs": {"content": content, **more}}


FORMS: dict[str, tuple[Callable[[str], Any], str]] = {
    "text": (lambda q: q, "{q}"),
    "JSON in a text": (lambda q: json.dumps(json.dumps({"question": q})), "{q}"),
    "chat": (lambda q: [{"role": "user", "content": q}], "user: {q}"),
    "one message": (lambda q: {"role": "user", "content": q}, "user: {q}"),
    "chat in a text": (lambda q: json.dumps([{"role": "user", "content": q}]), "user: {q}"),
    "request with parameters": (
        lambda q: {"model": "m", "temperature": 0.2, "messages": [{"role": "user", "content": q}], "stream": False},
        "user: {q}",
    ),
    "args and kwargs": (lambda q: {"args": [q], "kwargs": {}}, "{q}"),
    "several arguments": (lambda q: {"args": ["same", q], "kwargs": {"k": 3}}, "1: same\n2: {q}\nk: 3"),
    "content parts": (lambda q: [{"role": "user", "content": [{"type": "text", "text": q}]}], "user: {q}"),
    "responses API": (
        lambda q: {
            "instructions": "Be brief.", "input": [{"role": "user", "content": [{"type": "input_text", "text": q}]}]
        },
        "system: Be brief.\nuser: {q}",
    ),
    "tool call": (
        lambda q: [
            {"role": "user", "content": q},
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "content": "7"},
        ],
        "user: {q}\nassistant: [call f {{}}]\ntool: 7",
    ),
    "Anthropic's system": (
        lambda q: {"system": [{"type": "text", "text": "s"}], "messages": [{"role": "user", "content": q}]},
        "system: s\nuser: {q}",
    ),
    "Gemini": (lambda q: {"contents": [{"role": "user", "parts": [{"text": q}]}]}, "user: {q}"),
    "LangChain's types": (lambda q: {"messages": [{"type": "human", "content": q}]}, "user: {q}"),
    "LangChain's dumps": (lambda q: [{"type": "human", "data": {"content": q, "type": "human"}}], "user: {q}"),
    "LangChain's constructor": (lambda q: {"messages": [[constructor("HumanMessage", q, type="human")]]}, "user: {q}"),
    "constructor without a type": (
        lambda q: [constructor("SystemMessage", "s"), constructor("HumanMessage", q)],
        "system: s\nuser: {q}",
    ),
    "pairs of role and text": (lambda q: [["system", "s"], ["human", q]], "system: s\nuser: {q}"),
    "ShareGPT": (lambda q: [{"from": "human", "value": q}], "user: {q}"),
    "variables of a template": (lambda q: {"topic": q, "length": 3, "empty": None}, "topic: {q}\nlength: 3"),
    "a known name among variables": (lambda q: {"input": "same", "other": q}, "input: same\nother: {q}"),
    "history beside the question": (
        lambda q: {"question": q, "history": [{"type": "ai", "content": "Hello."}]},
        "question: {q}\nhistory: assistant: Hello.",
    ),
    "several texts": (lambda q: ["same", q], '["same", "{q}"]'),
    "an object of no known form": (lambda q: json.dumps({"a": {"b": q}, "c": {"d": 1}}),
                                   '{{"a": {{"b": "{q}"}}, "c": {{"d": 1}}}}'),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_prompt_is_what_it_says(form: str, tmp_path: Path) -> None:
    shape, expected = FORMS[form]
    for question in ("Name a river", "Add 2 and 2"):
        prompt = prompt_of(shape(question))
        assert prompt is not None
        assert prompt_text(prompt) == expected.format(q=question)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value", [None, "", "  ", [], {}, "null", '""', "{}", True, {"x": None}, {"a": {"b": {}}}, [[]]]
)
def test_what_is_no_prompt(value: Any) -> None:
    assert prompt_of(value) is None


def test_pictures_are_told_apart() -> None:
    def asked(url: str) -> Any:
        picture = {"type": "image_url", "image_url": {"url": url}}
        return prompt_text(chat_of([{"role": "user", "content": [{"type": "text", "text": "What is it?"}, picture]}]))

    assert str(asked("a.png")).startswith("user: What is it?\n[image_url ")
    assert asked("a.png") != asked("b.png")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        ('"a text"', "a text"),
        ({"role": "assistant", "content": "one"}, "one"),
        ({"choices": [{"index": 0, "message": {"role": "assistant", "content": "one"}}], "usage": {}}, "one"),
        ({"generations": [[{"text": "one", "message": constructor("AIMessage", "one")}]], "llm_output": None}, "one"),
        (constructor("AIMessage", [{"type": "text", "text": "one"}]), "one"),
        ({"output": [{"type": "reasoning", "summary": []},
                     {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "one"}]}]},
         "one"),
        ({"candidates": [{"content": {"role": "model", "parts": [{"text": "one"}]}, "finishReason": "STOP"}]}, "one"),
        ({"answer": "one", "sources": ["x"]}, "one"),
        ('{"a": 1, "b": 2}', '{"a": 1, "b": 2}'),
        ({"a": 1, "b": 2}, None),
        ({"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}, None),
        (["one", "two"], None),
        (None, None),
        (" ", None),
    ],
)  # fmt: skip
def test_answers(value: Any, expected: str | None) -> None:
    assert answer_of(value) == expected


def test_json_in_a_text() -> None:
    assert unpacked(json.dumps(json.dumps('it\'s "so"'))) == 'it\'s "so"'
    assert unpacked('"Yes" and "no"') == '"Yes" and "no"'


@pytest.mark.parametrize("form", FORMS)
def test_ratings_of_different_questions_are_never_compared(form: str, tmp_path: Path) -> None:
    shape = FORMS[form][0]
    traces = [
        {"id": str(n), "userId": "ann", "input": shape(question), "output": f"answer {n}"}
        for n, question in enumerate(("Name a river", "Add 2 and 2"))
    ]
    write_lines(tmp_path / "traces.jsonl", [*traces, {"id": "2", "userId": "ann", "output": "to nothing"}])
    write_lines(tmp_path / "scores.jsonl", [score("0", 1), score("1", 0), score("2", 1)])
    data = read_dataset(tmp_path)
    assert len({prompt for _, prompt, _, _ in rated(data)} - {None}) == 2
    assert counted(data) == (3, 2, {"no prompt is found in the trace's input": 1})


@pytest.mark.parametrize("form", FORMS)
def test_runs_of_different_questions_are_never_paired(form: str, tmp_path: Path) -> None:
    shape = FORMS[form][0]
    asked = ["Name a river", "Add 2 and 2", "Name a river"]
    runs = [{"id": str(n), "inputs": shape(q), "outputs": {"output": f"answer {n}"}} for n, q in enumerate(asked)]
    write_lines(tmp_path / "runs.jsonl", runs)
    rows = [
        {**feedback(run, value, feedback_group_id=group, **by("ann")), "id": number}
        for number, (run, value, group) in enumerate([("0", 1, "g"), ("1", 0, "g"), ("0", 1, "h"), ("2", 0, "h")])
    ]
    write_lines(tmp_path / "feedback.jsonl", rows)
    data = read_dataset(tmp_path)
    assert [row[2:] for row in said(data)] == [("answer 0", "answer 2")]
    assert counted(data)[2] == {"the runs compared have different inputs": 1}


def test_runs_that_differ_in_a_parameter_are_not_paired(tmp_path: Path) -> None:
    runs = [{"id": str(n), "inputs": {"question": "q", "user": f"u{n}"}, "outputs": f"answer {n}"} for n in (0, 1)]
    write_lines(tmp_path / "runs.jsonl", runs)
    write_lines(tmp_path / "feedback.jsonl", [
        {**feedback(str(n), n, feedback_group_id="g", **by("ann")), "id": n} for n in (0, 1)
    ])  # fmt: skip
    with pytest.raises(DatasetError, match="the runs compared have different inputs"):
        read_dataset(tmp_path)


def test_pages_of_an_api_and_feedback_that_was_changed(tmp_path: Path) -> None:
    runs = [{"id": str(n), "inputs": "q", "outputs": f"answer {n}"} for n in (0, 1)]
    (tmp_path / "runs.json").write_text(json.dumps({"data": runs, "meta": {"page": 1}}, indent=1))
    row = feedback("0", 0, feedback_group_id="g", **by("ann"))
    changed = [row, {**row, "score": 1}, {**row, "id": "other", "run_id": "1", "score": 0.5}]
    (tmp_path / "feedback.json").write_text(json.dumps({"data": changed}))
    data = read_dataset(tmp_path)
    assert said(data) == [("ann", "q", "answer 0", "answer 1")]
    assert counted(data) == (2, 1, {"later feedback has the same id": 1})


def test_a_score_of_an_observation_is_none_of_the_trace(tmp_path: Path) -> None:
    write_lines(tmp_path / "traces.jsonl", [{"id": "t", "userId": "ann", "input": "q", "output": "a"}])
    write_lines(tmp_path / "scores.jsonl", [score("t", 1, observationId="o"), score("t", 0.5)])
    data = read_dataset(tmp_path)
    assert [row[3] for row in rated(data)] == [0.5]
    assert counted(data) == (2, 1, {"the score is about one observation, not about the trace's answer": 1})


def test_langfuses_own_exports(tmp_path: Path) -> None:
    (tmp_path / "traces.csv").write_text(
        'id,userId,input,output\nt,ann,"""q""","{""role"": ""assistant"", ""content"": ""a""}"\n'
    )
    (tmp_path / "scores.csv").write_text("id,traceId,source,name,dataType,value,stringValue\ns,t,API,ok,NUMERIC,0.9,\n")
    assert rated(read_dataset(tmp_path, format="langfuse")) == [("ann", "q", "a", 0.9)]
    for name in ("traces", "scores"):
        (tmp_path / f"{name}.csv").unlink()
    write_lines(tmp_path / "traces.jsonl", [{"id": "t", "user_id": "ann", "input": "q", "output": "a"}])
    blob = {"id": "s", "trace_id": "t", "name": "ok", "value": 1, "data_type": "BOOLEAN", "string_value": None}
    write_lines(tmp_path / "scores.jsonl", [blob])
    assert rated(read_dataset(tmp_path, format="langfuse")) == [("ann", "q", "a", 1.0)]
