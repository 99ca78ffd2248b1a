"""The base of all schemas: a frozen pydantic model, read-only arrays, checked text and ids."""

from __future__ import annotations

import os
import time
import uuid
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
)

from mrm_sdk.errors import EmbeddingError, InvalidInputError, no_such

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MAX_ID_LENGTH = 255
# In UTF-8. An index of PostgreSQL takes 2,704 bytes, and tenant, user and event share one.
MAX_ID_BYTES = 3 * MAX_ID_LENGTH


def read_only(values: Any, dtype: Any = np.float64) -> NDArray[Any]:
    """Returns ``values`` as an array of ``dtype`` that cannot be written to (a copy where needed)."""
    array = np.array(values, dtype=dtype, order="C")
    array.flags.writeable = False
    return array


# pydantic's own time zone, kept to the end of a process, crashes it there under a debug allocator (python -X dev).
Utc = Annotated[datetime, AfterValidator(lambda moment: moment.astimezone(UTC))]
SERIALISED_VECTOR = PlainSerializer(lambda array: array.tolist(), return_type=list[float])
SERIALISED_MATRIX = PlainSerializer(lambda array: array.tolist(), return_type=list[list[float]])


def _in_brief(schema: dict[str, Any]) -> None:
    """Shortens a JSON schema's description to the docstring's first paragraph; the rest is for Python."""
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split("\n\n")[0].split())


class Frozen(BaseModel):
    """Base of all objects here: immutable, closed to unknown fields, and failing with an error of this package."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,  # they are user text, which stays out of pydantic's own messages too
        json_schema_extra=_in_brief,
    )

    if not TYPE_CHECKING:  # type checkers see the fields' own signature

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                details = error.errors(include_url=False, include_input=False)
                causes = [e.get("ctx", {}).get("error") for e in details]
                kind = EmbeddingError if any(isinstance(c, EmbeddingError) for c in causes) else InvalidInputError
                told = "; ".join(_told(type(self), e) for e in details)
                raise kind(f"Invalid {type(self).__name__}: {told}") from None

        # Tells pydantic that validation of nested data needs no detour through this method.
        __init__.__pydantic_base_init__ = True

    # Equality and hash of its own, because those of arrays are neither.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frozen) and _kind(other) is _kind(self) and self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())

    # A copy from another process is constructed again, and so is frozen too.
    def __reduce__(self) -> tuple[Any, ...]:
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return _make, (_kind(self), {k: dict(v) if isinstance(v, MappingProxyType) else v for k, v in values.items()})

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self

    def _content(self) -> tuple[Any, ...]:
        return tuple(_hashable(getattr(self, name)) for name in type(self).model_fields)


def _told(kind: type[Frozen], error: ErrorDetails) -> str:
    """One line of what pydantic found."""
    place = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        fields = _fields(kind)
        return f"give {fields[place]} or {place}, not both" if place in fields else no_such(place, fields)
    message = error["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _fields(kind: type[Frozen]) -> dict[str, str]:
    """The fields by all their names."""
    named = {name: name for name in kind.model_fields}
    for name, field in kind.model_fields.items():
        if isinstance(field.validation_alias, AliasChoices):
            named |= {str(choice): name for choice in field.validation_alias.choices}
    return named


def _kind(model: Frozen) -> type[Frozen]:
    """The class of an object; of a generic one, without the parameter: ``Ranked[str](…) == Ranked(…)``."""
    origin = type(model).__pydantic_generic_metadata__["origin"]
    return origin if origin is not None and issubclass(origin, Frozen) else type(model)


def _make(kind: type[Frozen], values: dict[str, Any]) -> Frozen:
    return kind(**values)


def _hashable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.shape, value.tobytes()
    return tuple(sorted(value.items())) if isinstance(value, MappingProxyType) else value


def identifier(name: str, value: object) -> str:
    """Returns ``value`` if it can name a user or a tenant.

    Raises:
        InvalidInputError: it is no text, or too short, or too long.
    """
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_LENGTH:
        raise InvalidInputError(f"{name} must be a text of 1 to {MAX_ID_LENGTH} characters.")
    try:
        _checked_id(value)
        return value
    except ValueError as error:
        raise InvalidInputError(f"{name}: {error}") from None


def _checked_id(value: Any) -> Any:
    """Returns ``value``; a text must be one that every database can hold in an index, anything else is left as it is.

    Raises:
        ValueError: it has a lone surrogate, a NUL character, or too many bytes.
    """
    if isinstance(value, str) and len(checked_text(value).encode()) > MAX_ID_BYTES:
        raise ValueError(f"an id has at most {MAX_ID_BYTES} bytes in UTF-8; use a hash of it")
    return value


def check_if_text(value: Any) -> Any:
    """Returns ``value``; a text is checked as :func:`checked_text` does, anything else is left to pydantic."""
    return checked_text(value) if isinstance(value, str) else value


def checked_text(text: str) -> str:
    """Returns ``text`` if every database and tokenizer can hold it.

    Raises:
        ValueError: it holds a lone surrogate or a NUL character.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds a lone surrogate and is not valid Unicode") from None
    if "\0" in text:
        raise ValueError("the text holds a NUL character, which databases refuse")
    return text


def uuid7() -> str:
    """Returns a new UUIDv7 (RFC 9562, 5.7): time-ordered, so that new events land at the end of an index."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    return str(uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62))


Identifier = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH), BeforeValidator(_checked_id)]
