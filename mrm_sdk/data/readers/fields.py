"""Values of records as other programs write them, checked one by one."""

from __future__ import annotations

from typing import Any

from mrm_sdk.data.readers.chats import Chat, chat_of, unpacked
from mrm_sdk.data.readers.source import Cell, Row
from mrm_sdk.errors import InvalidInputError

_BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


def need(record: Row, key: str, kind: type | tuple[type, ...] = str) -> Any:
    """The value of ``key``.

    Raises:
        InvalidInputError: it is missing or of another type.
    """
    if key not in record:
        names = ", ".join(map(str, list(record)[:8]))
        raise InvalidInputError(f"{key!r} missing; found: {names[:200]}")
    kinds = kind if isinstance(kind, tuple) else (kind,)
    value = _converted(record[key], kinds) if isinstance(record[key], Cell) else record[key]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(k.__name__ for k in kinds)
        raise InvalidInputError(
            f"{key!r} must be {names}, not {'str' if isinstance(value, str) else type(value).__name__}"
        )
    return value


def _converted(cell: Cell, kinds: tuple[type, ...]) -> Any:
    """What a cell says in a column that holds these types; the cell itself where it says none of them."""
    if list in kinds:
        inner = unpacked(cell)
        if isinstance(inner, list) and (str not in kinds or chat_of(inner) or all(isinstance(v, str) for v in inner)):
            return inner
    if bool in kinds and cell.strip().lower() in _BOOLEANS:
        return _BOOLEANS[cell.strip().lower()]
    number = number_of(cell) if float in kinds else None
    return cell if number is None else number


def number_of(value: Any) -> float | None:
    """A number, also one that a cell of CSV spells; ``None`` where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | Cell):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def messages(record: Row, key: str) -> Chat:
    """Chat messages.

    Raises:
        InvalidInputError: the value is no list of ``role`` and ``content``.
    """
    chat = chat_of(need(record, key, list))
    if chat is None:
        raise InvalidInputError(f"{key!r} must be chat messages with role and content")
    return chat
