"""Values of records as other programs write them, checked one by one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from mrm_sdk.data.readers.source import Row
from mrm_sdk.errors import InvalidInputError

# Where programs that trace calls put a prompt and an answer, the likeliest first.
_PROMPTS = ("messages", "prompt", "question", "query", "input", "instruction", "text", "content")
_ANSWERS = ("output", "answer", "response", "completion", "text", "content", "message", "messages")


def need(record: Row, key: str, kind: type | tuple[type, ...] = str) -> Any:
    """The value of ``key``.

    Raises:
        InvalidInputError: it is missing or of another type.
    """
    if key not in record:
        names = ", ".join(map(str, list(record)[:8]))
        raise InvalidInputError(f"{key!r} missing; found: {names[:200]}")
    value = record[key]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(k.__name__ for k in kinds)
        raise InvalidInputError(f"{key!r} must be {names}, not {type(value).__name__}")
    return value


def messages(record: Row, key: str) -> list[dict[str, str]]:
    """Chat messages.

    Raises:
        InvalidInputError: the value is no list of ``role`` and ``content``.
    """
    value = need(record, key, list)
    if not is_chat(value):
        raise InvalidInputError(f"{key!r} must be chat messages with role and content")
    return [{"role": message["role"], "content": message["content"]} for message in value]


def is_chat(value: object) -> bool:
    """Whether a value is a list of chat messages."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in value)
        and all(isinstance(m.get("content"), str) for m in value)
    )


def unpacked(value: Any) -> Any:
    """JSON within a cell of a table becomes what it says; anything else stays."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def prompt_of(value: Any) -> Any:
    """The prompt in a traced call's input: a text or chat messages; ``None`` where it is not to be found."""
    value = unpacked(value)
    if isinstance(value, str):
        return value or None
    if is_chat(value):
        return [{"role": m["role"], "content": m["content"]} for m in value]
    return _first(value, _PROMPTS, prompt_of)


def answer_of(value: Any) -> str | None:
    """The answer in a traced call's output: a text, or the last message's; ``None`` where it is not to be found."""
    value = unpacked(value)
    if isinstance(value, str):
        return value or None
    if is_chat(value):
        return str(value[-1]["content"]) or None
    if isinstance(value, list):
        return answer_of(value[0]) if len(value) == 1 else None
    choices = value.get("choices") or value.get("generations") if isinstance(value, dict) else None
    return answer_of(choices) if choices else _first(value, _ANSWERS, answer_of)


def _first(value: Any, keys: Iterable[str], find: Any) -> Any:
    if not isinstance(value, dict):
        return None
    candidates = [key for key in keys if key in value] or (list(value) if len(value) == 1 else [])
    return next((text for key in candidates if (text := find(value[key])) is not None), None)
