"""Argilla's records as its version 2 exports them, flattened.

Columns ``<question>.responses``, ``….responses.users`` and ``….responses.status`` are parallel lists; one record here
is one user's response to one question. A label that names a column is a choice among the columns called alike
(``response_1``, ``response_2``); a list of such names is a ranking, best first; a number rates the only answer.
Settings of a data set are not in the export: label values must be the columns' names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mrm_sdk.data.readers.chats import prompt_of, unpacked
from mrm_sdk.data.readers.source import Outcome, Reader, Row, Source, per_record
from mrm_sdk.errors import DatasetError, InvalidInputError

_PROMPTS = ("prompt", "instruction", "question", "input", "messages", "chat")
_ANSWERS = ("response", "completion", "answer", "output", "generation")
_ADDED = {"id", "external_id", "status", "_server_id", "inserted_at", "updated_at", "metadata", "vectors"}
_TIES = ("tie", "both", "equal", "same")
_END = ".responses"


def reader(question: str | None = None) -> Reader:
    """A reader of one question, by name; without a name, of the only one."""
    asked: dict[str, None] = {}  # in the order of the records

    def responses(record: Row) -> Iterator[Outcome]:
        questions = [key.removesuffix(_END) for key in record if key.endswith(_END)]
        asked.update(dict.fromkeys(questions))
        name = question or (next(iter(asked)) if len(asked) == 1 else None)
        if name is None and questions:
            raise InvalidInputError(_wanted("one question", asked))
        # The export writes null for all that a record has no answer to yet.
        if name is None or f"{name}{_END}.users" not in record:
            yield "the question has no response yet"
            return
        parts = [_list(record, f"{name}{_END}"), _list(record, f"{name}{_END}.users")]
        states = _list(record, f"{name}{_END}.status") if f"{name}{_END}.status" in record else []
        if len(parts[0]) != len(parts[1]) or len(states) not in (0, len(parts[0])):
            raise InvalidInputError(f"the lists of {name!r} differ in length")
        for number, (value, user) in enumerate(zip(*parts, strict=True)):
            status = states[number] if states else "submitted"
            if status != "submitted":
                yield f"the response is not submitted: {str(status)[:20]}"
            elif value is None or user is None:
                yield "no response" if value is None else "the user is not known"
            else:
                yield _judged(record, unpacked(value), user)

    def read(source: Source) -> Iterator[tuple[str, Outcome]]:
        asked.clear()
        yield from per_record("records", responses, _used)(source)
        if not asked or (question is not None and question not in asked):
            named = "one question" if question is None else f"a question {question!r}"
            raise DatasetError(f"{source.name}: {_wanted(named, asked)}")

    return read


def _wanted(named: str, asked: Iterable[str]) -> str:
    return (
        f"expected {named} with '<question>.responses' and '….responses.users'; there are: "
        f"{', '.join(asked) or 'none'}. Name one as --format argilla:QUESTION."
    )


def _judged(record: Row, value: Any, user_id: Any) -> Outcome:
    prompt = next((prompt_of(record[key]) for key in _PROMPTS if key in record), None)
    common = {"user_id": user_id, "prompt": prompt}
    if isinstance(value, bool | int | float):
        answers = [key for key in _ANSWERS if isinstance(record.get(key), str)]
        if len(answers) != 1:
            return f"a number rates one answer, and the record has {len(answers)} of {', '.join(_ANSWERS)}"
        if prompt is None and (others := _content(record) - {answers[0]}):
            return f"the record does not say which field is the prompt: {', '.join(sorted(others)[:5])}; call it prompt"
        return [{**common, "response": record[answers[0]], "rating": float(value)}]
    common |= {"group": str(record["id"])} if "id" in record else {}
    columns = {_alike(key): key for key, text in record.items() if isinstance(text, str)}
    if isinstance(value, list):
        ranked = [item.get("value") if isinstance(item, dict) else item for item in value]
        texts = [record[columns[_alike(name)]] for name in ranked if _alike(name) in columns]
        if len(texts) < len(ranked) or len(set(texts)) < max(2, len(texts)):
            return "the ranking does not name two or more different answers of the record"
        if any(isinstance(item, dict) and item.get("rank") != rank for rank, item in enumerate(value, 1)):
            return "the ranking has ties or is out of order"
        return [{**common, "ranking": texts}]
    name = _alike(value)
    stem = re.sub(r"_?[0-9a-z]$", "", name)
    sides = {
        key: record[column] for key, column in columns.items() if re.fullmatch(rf"{re.escape(stem)}_?[0-9a-z]", key)
    }
    if name in _TIES:
        return "a tie, and the record does not say which answers it is about"
    if name not in sides or len(sides) < 2:
        return "the label does not name one of several answers of the record"
    rows = [{**common, "chosen": sides[name], "rejected": text} for text in sides.values() if text != sides[name]]
    return rows or "all answers are the same text"


def _content(record: Row) -> set[str]:
    """The fields that people saw; what Argilla adds has a point in its name, or one of these."""
    return {key for key in record if "." not in key} - _ADDED


def _used(names: Sequence[str]) -> list[str]:
    """Any field may be an answer that a label names; what Argilla adds but responses and the id is not looked at."""
    ends = (_END, f"{_END}.users", f"{_END}.status")
    return [name for name in names if name.endswith(ends) or name == "id" or ("." not in name and name not in _ADDED)]


def _alike(name: object) -> str:
    return re.sub(r"[\s-]+", "_", str(name).strip().lower())


def _list(record: Row, key: str) -> list[Any]:
    value = unpacked(record.get(key))
    if not isinstance(value, list):
        raise InvalidInputError(f"{key!r} must be a list")
    return value


read = reader()
