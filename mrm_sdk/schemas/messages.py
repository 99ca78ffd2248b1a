"""Chat messages as programs write them: what a message says, as text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, Required, TypeAlias, TypeGuard

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from mrm_sdk.errors import no_such

_TEXT_PARTS: Final = ("text", "input_text", "output_text")
_SAYING: Final = ("content", "tool_calls", "function_call", "refusal")
# What a message may hold beside what it says: whose it is, and how it came about.
_BESIDE: Final = (
    "role", "name", "tool_call_id", "id", "type", "status", "audio", "annotations", "reasoning", "reasoning_content",
)  # fmt: skip
_KNOWN: Final = (*_SAYING, *_BESIDE)


class Dumpable(Protocol):
    """A message as an object: one of this package's, of the openai client's, or another model of pydantic."""

    def model_dump(self) -> dict[str, Any]:
        """Returns its fields."""


@with_config(ConfigDict(extra="allow"))
class ChatMessage(TypedDict, total=False):
    """A chat message. Parts of text are joined, other parts named in place; a call of a tool becomes a line."""

    role: Required[str]
    content: str | list[str | dict[str, Any]] | None
    name: str | None
    tool_calls: list[dict[str, Any]] | None
    tool_call_id: str | None
    refusal: str | None


AnyMessage: TypeAlias = Mapping[str, object] | Dumpable


def role_and_text(message: object) -> tuple[str, str]:
    """Returns a message's role, and what it says.

    Raises:
        ValueError: it is no message, says nothing, or holds what is not understood.
    """
    if isinstance(message, dict) and len(message) == 2:  # as most are
        role, content = message.get("role"), message.get("content")
        if isinstance(role, str) and isinstance(content, str):
            return role, content
    try:
        plain = _plain(message)
    except RecursionError:
        raise ValueError("the message is nested too deeply") from None
    if not isinstance(plain, dict):
        raise ValueError(f"expected a chat message with role and content, not {type(message).__name__}")
    told = {key: value for key, value in plain.items() if value is not None}
    unknown = next((key for key in told if key not in _KNOWN), None)
    # An object is of another program's making, and has fields of its own; a mapping may hold a slip of the pen.
    if unknown is not None and isinstance(message, Mapping):
        raise ValueError(no_such(unknown, _KNOWN))
    if not isinstance(told.get("role"), str):
        raise ValueError("a chat message needs a role, such as user or assistant")
    if "content" in told and content_of(told["content"]) is None:
        raise ValueError("content: expected a text, or a list of parts that each have a type")
    if not isinstance(told.get("refusal", ""), str):
        raise ValueError("refusal: expected a text")
    if not all(_is_call(call) for call in _calls(told)):
        raise ValueError("tool_calls: expected a list of calls, each with a function and its name")
    text = said(told)
    if not text and "content" not in told:
        raise ValueError("the message says nothing: expected content, tool_calls or refusal")
    return told["role"], text


def is_message(value: object) -> bool:
    """Whether a value is meant as a chat message: a mapping with a role, or an object with fields."""
    return "role" in value if isinstance(value, Mapping) else _is_dumpable(value)


def content_of(content: Any) -> str | None:
    """A message's content as text: parts of text are joined, others named; ``None`` where it is no content."""
    if content is None or isinstance(content, str):
        return content
    texts = [_part(part) for part in (content if isinstance(content, list) else [content])]
    return None if None in texts else "\n".join(text for text in texts if text)


def said(message: Mapping[str, Any]) -> str:
    """What a message says: its content, then its refusal, then the tools that it calls, a line for each."""
    texts = [content_of(message.get("content")), message.get("refusal")]
    texts += [_call(call) for call in _calls(message) if isinstance(call, dict)]
    return "\n".join(text for text in texts if isinstance(text, str) and text)


def as_json(value: Any) -> str:
    """A value as JSON, the same for equal values."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _part(part: Any) -> str | None:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or not (isinstance(part.get("type"), str) or isinstance(part.get("text"), str)):
        return None
    kind = part.get("type", "text")
    if kind in _TEXT_PARTS:
        return part["text"] if isinstance(part.get("text"), str) else None
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return str(part["refusal"])
    if kind in ("tool_use", "tool_call", "function_call"):
        return _call(part)
    # Pictures are told apart, though no text encoder sees them.
    digest = hashlib.sha256(json.dumps(part, sort_keys=True, default=str).encode()).hexdigest()
    return f"[{kind} {digest[:8]}]"


def _calls(message: Mapping[str, Any]) -> list[Any]:
    calls = message.get("tool_calls") or message.get("function_call") or []
    return calls if isinstance(calls, list) else [calls]


def _is_call(call: object) -> bool:
    return isinstance(call, dict) and isinstance(_function(call).get("name"), str)


def _function(call: Mapping[str, Any]) -> Mapping[str, Any]:
    function = call.get("function")
    return function if isinstance(function, dict) else call


def _call(call: Mapping[str, Any]) -> str:
    inner = _function(call)
    arguments = next((inner[key] for key in ("arguments", "args", "input") if key in inner), "")
    return f"[call {inner.get('name', '')} {arguments if isinstance(arguments, str) else as_json(arguments)}]"


def _is_dumpable(value: object) -> TypeGuard[Dumpable]:
    return not isinstance(value, type) and callable(getattr(value, "model_dump", None))


def _plain(value: object) -> Any:
    """Models, mappings and sequences as dictionaries and lists, all the way down."""
    if _is_dumpable(value):
        return _plain(dict(value.model_dump()))
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(inner) for inner in value]
    return value
