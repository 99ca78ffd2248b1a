"""Frozen objects that a host hands in and gets back; imports errors, pydantic and numpy only."""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from mrm_sdk.errors import EmbeddingError, InvalidInputError

MAX_ID_LENGTH = 255


def read_only(values: Any, dtype: Any = np.float64) -> NDArray[Any]:
    """Returns ``values`` as an array of ``dtype`` that cannot be written to (a copy where needed)."""
    array = np.array(values, dtype=dtype, order="C")
    array.flags.writeable = False
    return array


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


_SERIALISED = PlainSerializer(lambda array: None if array is None else array.tolist(), return_type=Any)
Embedding = Annotated[NDArray[np.float32], BeforeValidator(_embedding), _SERIALISED]
Array = Annotated[NDArray[np.float64], BeforeValidator(lambda v: v if v is None else read_only(v)), _SERIALISED]


class Frozen(BaseModel):
    """Base of all objects here: immutable, closed to unknown fields, and failing with an error of this package."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    if not TYPE_CHECKING:  # type checkers see the fields' own signature

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                # The offending values are user text: they stay out of the message.
                details = error.errors(include_url=False, include_input=False)
                parts = (
                    f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg'].removeprefix('Value error, ')}"
                    for e in details
                )
                causes = [e.get("ctx", {}).get("error") for e in details]
                kind = EmbeddingError if any(isinstance(c, EmbeddingError) for c in causes) else InvalidInputError
                raise kind(f"Invalid {type(self).__name__}: {'; '.join(parts)}") from None

        # Tells pydantic that validation of nested data needs no detour through this method.
        __init__.__pydantic_base_init__ = True

    # Equality and hash of its own, because those of arrays are neither.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frozen) and type(other) is type(self) and self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())

    # A copy from another process or from deepcopy is made anew, and so is frozen too.
    def __reduce__(self) -> tuple[Any, ...]:
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return _make, (type(self), {k: dict(v) if isinstance(v, MappingProxyType) else v for k, v in values.items()})

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self

    def _content(self) -> tuple[Any, ...]:
        return tuple(_hashable(getattr(self, name)) for name in type(self).model_fields)


def _make(kind: type[Frozen], values: dict[str, Any]) -> Frozen:
    return kind(**values)


def _hashable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.shape, value.tobytes()
    return tuple(sorted(value.items())) if isinstance(value, MappingProxyType) else value


class Message(Frozen):
    """One chat message of a prompt."""

    role: Annotated[str, BeforeValidator(lambda v: _checked(v))]
    content: Annotated[str, BeforeValidator(lambda v: _checked(v))]


Prompt: TypeAlias = str | Sequence[Message] | Sequence[dict[str, str]] | None


class Response(Frozen):
    """An answer to a prompt: its text, an embedding of one's own ([D] float32), or both (the embedding is then used).

    Raises:
        EmbeddingError: the embedding is not one finite vector.
        InvalidInputError: neither text nor embedding is given, or the text holds lone surrogates.
    """

    text: str | None = None
    embedding: Embedding | None = None

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
    def of(cls, value: str | Response) -> Response:
        """Returns ``value`` itself, or a response with it as text."""
        if isinstance(value, Response):
            return value
        if isinstance(value, str):
            return cls(text=value)
        raise InvalidInputError(f"A response must be a str or a Response, not {type(value).__name__}.")


def identifier(name: str, value: object) -> str:
    """Returns ``value`` if it can name a user or a tenant.

    Raises:
        InvalidInputError: it is no text, or too short, or too long.
    """
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_LENGTH:
        raise InvalidInputError(f"{name} must be a text of 1 to {MAX_ID_LENGTH} characters.")
    try:
        return checked_text(value)
    except ValueError as error:
        raise InvalidInputError(f"{name}: {error}") from None


def _checked(value: Any) -> Any:
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


def prompt_text(prompt: Prompt) -> str | None:
    """Returns a prompt as one text: itself, or chat messages as ``role: content`` lines.

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


def uuid7() -> str:
    """Returns a new UUIDv7 (RFC 9562, 5.7): time-ordered, so that new events land at the end of an index."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    return str(uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62))


Identifier = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH), BeforeValidator(lambda v: _checked(v))]


def _utc(moment: datetime) -> datetime:
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time lies outside of the calendar") from None
    if moment > datetime.now(UTC) + timedelta(days=1):
        raise ValueError("the time lies more than a day in the future; check the clock that made it")
    return moment


def _side(value: Any) -> str | Response:
    if isinstance(value, str):
        return checked_text(value)
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return Response(**value)
    if isinstance(value, Response):
        return value
    raise ValueError(f"a text or a Response is wanted, not {type(value).__name__}")


def _prompt(value: Any) -> str | tuple[Message, ...] | None:
    if value is None or isinstance(value, str):
        return None if value is None else checked_text(value)
    if isinstance(value, Sequence) and all(isinstance(message, Message | dict) for message in value):
        return tuple(m if isinstance(m, Message) else Message(**{str(k): v for k, v in m.items()}) for m in value)
    raise ValueError("None, a text or chat messages with role and content are wanted")


# Checked before the union is: what is said of a wrong value is then one sentence, not one per member.
Side = Annotated[str | Response, BeforeValidator(_side)]
PromptField = Annotated[str | tuple[Message, ...] | None, BeforeValidator(_prompt)]
Strength = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Moment = Annotated[AwareDatetime, AfterValidator(_utc)]


class Comparison(Frozen):
    """One user's judgement: for ``prompt``, ``chosen`` is better than ``rejected``, or (``tie``) as good.

    Args:
        user_id: the host's own name of the user, at most 255 characters.
        prompt: ``None``, a text, or chat messages ``[{"role", "content"}]``.
        chosen: the better response, a text or a :class:`Response`.
        rejected: the other one.
        tie: both are as good; the order of the two then says nothing.
        strength: how much this judgement counts, 1 for an ordinary one, in (0, 100].
        event_id: makes recording idempotent; a new UUIDv7 by default.
        created_at: when the user judged, with a time zone, at most a day ahead of this clock; now by default.

    Raises:
        InvalidInputError: a field is missing, unknown or out of range.
        EmbeddingError: an embedding is not one finite vector.
    """

    user_id: Identifier
    prompt: PromptField = None
    chosen: Side
    rejected: Side
    tie: bool = False
    strength: Strength = 1.0
    event_id: Identifier = Field(default_factory=uuid7)
    created_at: Moment = Field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, eq=False)
class Item:
    """What is encoded: a response in the light of its prompt."""

    prompt: str | None
    text: str | None
    embedding: NDArray[np.float32] | None

    @classmethod
    def of(cls, prompt: Prompt, response: str | Response) -> Item:
        """Builds the item of ``response`` to ``prompt``."""
        response = Response.of(response)
        return cls(prompt_text(prompt), response.text, response.embedding)

    @cached_property
    def prompt_key(self) -> bytes:
        """SHA-256 over the prompt: only ratings of the same prompt are compared."""
        return hashlib.sha256(json.dumps(self.prompt).encode()).digest()

    @cached_property
    def key(self) -> bytes:
        """SHA-256 over the content: equal items are the same item, whoever judged them."""
        digest = hashlib.sha256(json.dumps([self.prompt, self.text]).encode())
        if self.embedding is not None:
            digest.update(self.embedding.tobytes())
        return digest.digest()


class Refusal(NamedTuple):
    """Feedback that was not stored: its position in what was handed in, and why."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a refusal
    reason: str


class Recorded(Frozen):
    """What became of recorded feedback; a ranking counts as one, whatever number of comparisons it makes.

    Args:
        accepted: how many were stored, and are durable.
        duplicates: how many had been recorded before.
        rejected: which ones were refused, by their place in what was handed in, and why.
    """

    accepted: int
    duplicates: int
    rejected: tuple[Refusal, ...] = ()


class UserReward(Frozen):
    """One user's reward model: ``r(x, y) = weights · φ(x, y)``.

    Args:
        user_id: whose.
        weights: [K] float64.
        covariance: [K, K] float64, the Laplace posterior covariance; ``None`` under ``gradient`` adaptation.
        comparisons: how many comparisons and ratings the weights have seen; 0 means the prior. A ranking of n counts
            as the n (n − 1) / 2 comparisons that it makes, and only the newest rating of a response counts.
        revision: how often these weights were stored; 0 means never.
        fingerprint: of the bundle that they belong to.
    """

    user_id: str
    weights: Array
    covariance: Array | None
    comparisons: int
    revision: int
    fingerprint: str


class Ranked(Frozen):
    """A response, ranked.

    Args:
        index: its place in what was handed in.
        score: its reward for the user; only differences mean anything.
        response: itself.
    """

    index: int
    score: float
    response: str | Response


class Forgotten(Frozen):
    """How many rows of each table went with a user."""

    user_id: str
    rows: Annotated[Mapping[str, int], AfterValidator(MappingProxyType), PlainSerializer(dict, return_type=dict)]


class Rebuilt(Frozen):
    """What a rebuild computed: items encoded, comparisons whose features were stored, users adapted or up to date."""

    items: int
    comparisons: int
    users: int


class Pruned(Frozen):
    """How many rows of each table went, and from before when: such events stay out."""

    before: AwareDatetime
    rows: Annotated[Mapping[str, int], AfterValidator(MappingProxyType), PlainSerializer(dict, return_type=dict)]
