"""Label Studio's JSON export of a project with a Pairwise tag.

One record is a result ``{"type": "pairwise", "value": {"selected": "left"}}`` of one annotator. Which texts were left
and right stands in ``to_name``, so Text tags must be named as the data's keys are (``<Text name="answer1"
value="$answer1"/>``); without that, two texts whose names differ in their end alone (``answer1``, ``answer2``) are
compared, and the first is the left one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from mrm_sdk.data.readers.fields import need
from mrm_sdk.data.readers.source import Outcome, Row, only, per_record
from mrm_sdk.errors import InvalidInputError

_NUMBERED = re.compile(r"(.*?)(?:[_-]?(?:\d+|left|right|first|second|one|two)|[_-]?[A-Z]|[_-][a-z])")
_PROMPTS = ("prompt", "instruction", "question", "input", "messages", "dialogue")


def _task(task: Row) -> Iterator[Outcome]:
    data = need(task, "data", dict)
    for annotation in need(task, "annotations", list):
        if not isinstance(annotation, dict):
            raise InvalidInputError("'annotations' must hold objects; export as JSON, not as JSON_MIN")
        user = annotation.get("completed_by")
        user = user.get("email") or user.get("id") if isinstance(user, dict) else user
        results = [r for r in need(annotation, "result", list) if isinstance(r, dict) and r.get("type") == "pairwise"]
        if annotation.get("was_cancelled"):
            yield "the annotation was cancelled"
        elif user is None:
            yield "the annotator is not known"
        elif not results:
            yield "the annotation holds no pairwise result"
        else:
            for result in results:
                yield _judged(data, result, user, task.get("id"))


def _judged(data: Row, result: Row, user: Any, task: Any) -> Outcome:
    key = next((key for key in _PROMPTS if data.get(key) is not None), None)
    named = [name.strip() for name in str(result.get("to_name", "")).split(",")]
    if len(named) != 2 or not all(isinstance(data.get(name), str) for name in named):
        named = _numbered([name for name, value in data.items() if name != key and isinstance(value, str)])
    if len(named) != 2:
        raise InvalidInputError(
            "the record does not say which two texts were compared: "
            f"name the Text tags as the data's keys ({', '.join(data)})"
        )
    selected = need(need(result, "value", dict), "selected")
    if selected not in ("left", "right"):
        return "neither left nor right is selected"
    chosen, rejected = (data[name] for name in (named if selected == "left" else named[::-1]))
    if chosen == rejected:
        return "both texts are the same"
    common = {"user_id": user, "prompt": data[key] if key else None, "chosen": chosen, "rejected": rejected}
    return [common | ({} if task is None else {"group": str(task)})]


def _numbered(names: list[str]) -> list[str]:
    """Those of the names that differ in a number, a letter or a side at their end, where these are one set."""
    ends = {name: found[1] for name in names if (found := _NUMBERED.fullmatch(name))}
    return list(ends) if len(set(ends.values())) == 1 else []


read = per_record("tasks", _task, only("data", "annotations", also=("id",)))
