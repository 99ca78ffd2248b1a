"""What is judged and encoded: prompts, responses, and items, which are a response to a prompt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, field_validator, model_validator

from mrm_sdk.errors import EmbeddingError, InvalidInputError
from mrm_sdk.schemas.frozen import SERIALISED_VECTOR, Frozen, check_if_text, checked_text, read_only
from mrm_sdk.schemas.messages import AnyMessage, ChatMessage, is_message, role_and_text

_json = json.JSONEncoder()


class HasArray(Protocol):
    """An array of numpy's, a tensor, or anything else that numpy turns into an array."""

    def __array__(self) -> NDArray[Any]:
        """Returns it as an array of numpy's."""


# What may be handed in is wider than what is kept: these are the types of arguments.
Vector: TypeAlias = Sequence[float] | Sequence[np.floating[Any] | np.integer[Any]] | HasArray
Prompt: TypeAlias = str | Sequence[AnyMessage] | None


def _embedding(values: Any) -> NDArray[np.float32] | None:
    if values is None:
        return None
    try:
        if np.asarray(values).dtype.kind not in "fiub":
            raise TypeError
        with np.errstate(over="ignore"):  # too large for float32 becomes infinity, which is refused below
            array = read_only(values, np.float32)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # a tensor that wants gradients raises the last
        raise EmbeddingError("An embedding must be a flat sequence of numbers.") from None
    if array.ndim != 1 or array.size == 0:
        raise EmbeddingError(f"An embedding must be one vector [D], not an array of shape {list(array.shape)}.")
    if not np.isfinite(array).all():
        raise EmbeddingError("An embedding holds NaN or infinity; check the encoder that made it.")
    return array


Embedding = Annotated[
    NDArray[np.float32], BeforeValidator(_embedding, json_schema_input_type=list[float]), SERIALISED_VECTOR
]


class Message(Frozen):
    """What one chat message of a prompt says."""

    role: Annotated[str, BeforeValidator(lambda v: check_if_text(v))]
    content: Annotated[str, BeforeValidator(lambda v: check_if_text(v))]


class Response(Frozen):
    """An answer to a prompt: its text, an embedding of one's own ([D] float32), or both (the embedding is then used).

    Raises:
        EmbeddingError: the embedding is not one finite vector.
        InvalidInputError: neither text nor embedding is given, or the text holds lone surrogates.

    Example:
        >>> from mrm_sdk import Response
        >>> Response(text="A phone book.", embedding=[0.1, 0.9]).embedding
        array([0.1, 0.9], dtype=float32)
    """

    text: str | None = None
    embedding: Embedding | None = None

    if TYPE_CHECKING:

        def __init__(self, *, text: str | None = None, embedding: Vector | None = None) -> None: ...

    @field_validator("text")
    @classmethod
    def _encodable(cls, text: str | None) -> str | None:
        return None if text is None else checked_text(text)

    @model_validator(mode="after")
    def _not_empty(self) -> Response:
        if self.text is None and self.embedding is None:
            raise ValueError("give text, an embedding, or both")
        return self

    @classmethod
    def of(cls, value: AnyResponse) -> Response:
        """Returns ``value`` itself, or a response with its text.

        Raises:
            InvalidInputError: it is neither a text, a response, nor one chat message.
        """
        if isinstance(value, Response):
            return value
        try:
            side = _side(value)
        except InvalidInputError:
            raise
        except ValueError as error:
            raise InvalidInputError(f"Invalid response: {error}") from None
        return side if isinstance(side, Response) else cls(text=side)


AnyResponse: TypeAlias = str | Response | AnyMessage | Sequence[AnyMessage]
ResponseT = TypeVar("ResponseT", bound=AnyResponse)


def prompt_text(prompt: Prompt) -> str | None:
    """Returns a prompt as one text: itself, or what chat messages say as ``role: content`` lines.

    Raises:
        InvalidInputError: it is neither text, messages nor ``None``.
    """
    try:
        checked = _prompt(prompt)
    except ValueError as error:
        raise InvalidInputError(f"Invalid prompt: {error}") from None
    if checked is None or isinstance(checked, str):
        return checked
    return "\n".join(f"{message.role}: {message.content}" for message in checked)


def _side(value: Any) -> str | Response:
    if isinstance(value, str):
        return checked_text(value)
    if isinstance(value, Response):
        return value
    if is_message(value):
        return checked_text(role_and_text(value)[1])
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return Response(**value)
    if _is_list(value) and value and all(is_message(message) for message in value):
        if len(value) > 1:
            raise ValueError(f"expected one message, not {len(value)}; those before the answer belong to the prompt")
        return checked_text(role_and_text(value[0])[1])
    raise ValueError(f"expected a text, a Response or one chat message, not {type(value).__name__}")


def _prompt(value: Any) -> str | tuple[Message, ...] | None:
    if value is None or isinstance(value, str):
        return None if value is None else checked_text(value)
    if not _is_list(value):
        raise ValueError(f"expected None, a text or a list of chat messages, not {type(value).__name__}")
    return tuple(
        message if isinstance(message, Message) else _message(message, place) for place, message in enumerate(value)
    )


def _message(value: object, place: int) -> Message:
    try:
        role, content = role_and_text(value)
        return Message(role=role, content=content)
    except ValueError as error:
        raise ValueError(f"message {place}: {error}") from None


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)


# Checked before the union is: what is said of a wrong value is then one sentence, not one per member.
Side = Annotated[
    str | Response,
    BeforeValidator(_side, json_schema_input_type=str | Response | ChatMessage | list[ChatMessage]),
]
PromptField = Annotated[
    str | tuple[Message, ...] | None,
    BeforeValidator(_prompt, json_schema_input_type=str | list[ChatMessage] | None),
]


@dataclass(frozen=True, eq=False)
class Item:
    """What is encoded: a response to its prompt."""

    prompt: str | None
    text: str | None
    embedding: NDArray[np.float32] | None

    @classmethod
    def of(cls, prompt: Prompt, response: AnyResponse) -> Item:
        """Builds the item of ``response`` to ``prompt``."""
        response = Response.of(response)
        return cls(prompt_text(prompt), response.text, response.embedding)

    @cached_property
    def prompt_key(self) -> bytes:
        """SHA-256 over the prompt: only ratings of the same prompt meet."""
        return hashlib.sha256(json.dumps(self.prompt).encode()).digest()

    @cached_property
    def key(self) -> bytes:
        """SHA-256 over the content: equal items are one item for all users."""
        digest = hashlib.sha256(f"[{_quoted(self.prompt)}, {_quoted(self.text)}]".encode())
        if self.embedding is not None:
            digest.update(self.embedding.tobytes())
        return digest.digest()


def _quoted(text: str | None) -> str:
    """JSON, as json.dumps writes it: for a list of texts it makes an encoder each time, for one text it needs none."""
    return "null" if text is None else _json.encode(text)
