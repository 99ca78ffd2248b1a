"""Feedback: comparisons, ratings, thumbs and rankings, frozen; checked as they are made."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any, Literal, Required, Self, TypeAlias, TypedDict, Unpack, overload

from pydantic import (
    AfterValidator,
    AliasChoices,
    AwareDatetime,
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from mrm_sdk.schemas.frozen import MAX_ID_LENGTH, Frozen, Identifier, uuid7
from mrm_sdk.schemas.items import AnyResponse, Item, Prompt, PromptField, Response, Side

MOST_RANKED = 50
_UpOrDown: TypeAlias = bool | Literal["up", "down"]
_THUMBS = {"up": True, "down": False}
# Room for the number that each comparison of a ranking carries behind the ranking's own id.
_MAX_RANKING_ID = MAX_ID_LENGTH - len(f"#{MOST_RANKED * (MOST_RANKED - 1) // 2}")


def _utc(moment: datetime) -> datetime:
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time lies outside of the calendar") from None
    if moment > datetime.now(UTC) + timedelta(days=1):
        raise ValueError("the time lies more than a day in the future; check the clock that made it")
    return moment


Strength = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Moment = Annotated[AwareDatetime, AfterValidator(_utc)]


class _Common(TypedDict, total=False):
    """The arguments that all of them take, as type checkers see them."""

    user_id: Required[str]
    prompt: Prompt
    strength: float
    event_id: str
    created_at: datetime


class _Judgement(Frozen):
    """What comparison, rating, thumb and ranking share."""

    user_id: Identifier
    prompt: PromptField = None
    strength: Strength = 1.0
    event_id: Identifier = Field(default_factory=uuid7)
    created_at: Moment = Field(default_factory=lambda: datetime.now(UTC))


class Comparison(_Judgement):
    """One user's judgement: for ``prompt``, ``chosen`` is better than ``rejected``, or (``tie``) as good.

    Args:
        user_id: the host's own name of the user, at most 255 characters.
        prompt: ``None``, a text, or chat messages ``[{"role", "content", …}]`` as OpenAI and TRL write them.
        chosen: the better response: a text, a :class:`Response`, or a chat message.
        rejected: the other one.
        tie: both are as good; the order of the two then says nothing.
        strength: how much this judgement counts, 1 for an ordinary one, in (0, 100].
        event_id: makes recording idempotent; a new UUIDv7 by default.
        created_at: when the user judged, with a time zone, at most a day ahead of this clock; now by default.

    Raises:
        InvalidInputError: a field is missing, unknown or out of range, or both responses are the same.
        EmbeddingError: an embedding is not one finite vector.

    Example:
        >>> from mrm_sdk import Comparison
        >>> comparison = Comparison(user_id="ada", chosen="A phone book.", rejected="See RFC 1034.")
        >>> comparison.tie, comparison.strength
        (False, 1.0)
    """

    chosen: Side
    rejected: Side
    tie: bool = False

    if TYPE_CHECKING:

        def __init__(
            self, *, chosen: AnyResponse, rejected: AnyResponse, tie: bool = False, **common: Unpack[_Common]
        ) -> None: ...

    @model_validator(mode="after")
    def _compares(self) -> Self:
        if _are_equal(self.chosen, self.rejected):
            raise ValueError("chosen and rejected are the same response, so nothing is compared")
        return self


def _are_equal(one: str | Response, other: str | Response) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one == other
    a, b = Response.of(one), Response.of(other)
    if a.text != b.text or a.embedding is None or b.embedding is None:
        return a.text == b.text and a.embedding is b.embedding
    return a.embedding.tobytes() == b.embedding.tobytes()


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected a number; a thumb up or down is a Thumb")
    return value


class Rating(_Judgement):
    """One user's judgement of one response, as a number: the higher, the better.

    Ratings become comparisons within a prompt (or among those with ``prompt=None``), each as far as the user's own
    spread of values makes it count; so any scale will do, but one user's ratings must share it. Where a response is
    rated again, the rating with the later ``created_at`` counts alone. One rating of a prompt compares nothing yet.

    Args:
        user_id: the host's own name of the user, at most 255 characters.
        prompt: ``None``, a text, or chat messages ``[{"role", "content", …}]`` as OpenAI and TRL write them.
        response: what was rated: a text, a :class:`~mrm_sdk.Response`, or a chat message.
        value: stars, points or the like; any finite number. Data sets call it ``rating``, which is taken too.
        strength: how much this judgement counts, 1 for an ordinary one, in (0, 100].
        event_id: makes recording idempotent; a new UUIDv7 by default.
        created_at: when the user judged, with a time zone, at most a day ahead of this clock; now by default.

    Raises:
        InvalidInputError: a field is missing, unknown or out of range.
        EmbeddingError: an embedding is not one finite vector.

    Example:
        >>> from mrm_sdk import Rating
        >>> Rating(user_id="ada", prompt="What is DNS?", response="A phone book.", value=4).value
        4.0
    """

    response: Side
    value: Annotated[
        float,
        Field(allow_inf_nan=False, validation_alias=AliasChoices("value", "rating"), description="or: rating"),
        BeforeValidator(_number),
    ]

    if TYPE_CHECKING:

        @overload
        def __init__(self, *, response: AnyResponse, value: float, **common: Unpack[_Common]) -> None: ...
        @overload
        def __init__(self, *, response: AnyResponse, rating: float, **common: Unpack[_Common]) -> None: ...
        def __init__(self, **values: Any) -> None: ...


def _up(value: Any) -> Any:
    return _THUMBS.get(value.lower(), value) if isinstance(value, str) else value


class Thumb(_Judgement):
    """A thumb up or down: a :class:`Rating` of 1 or −1, with the same arguments, results and errors.

    Args:
        user_id: the host's own name of the user, at most 255 characters.
        prompt: ``None``, a text, or chat messages ``[{"role", "content", …}]`` as OpenAI and TRL write them.
        response: what was judged: a text, a :class:`~mrm_sdk.Response`, or a chat message.
        up: whether the user liked it, as a boolean, ``"up"`` or ``"down"``. Data sets call it ``thumb``, which is taken
            too.
        strength: how much this judgement counts, 1 for an ordinary one, in (0, 100].
        event_id: makes recording idempotent; a new UUIDv7 by default.
        created_at: when the user judged, with a time zone, at most a day ahead of this clock; now by default.

    Example:
        >>> from mrm_sdk import Thumb
        >>> Thumb(user_id="ada", response="A phone book.", up=False).as_rating().value
        -1.0
    """

    response: Side
    up: Annotated[
        bool,
        Field(validation_alias=AliasChoices("up", "thumb"), description="or: thumb"),
        BeforeValidator(_up, json_schema_input_type=_UpOrDown),
    ]

    if TYPE_CHECKING:

        @overload
        def __init__(self, *, response: AnyResponse, up: _UpOrDown, **common: Unpack[_Common]) -> None: ...
        @overload
        def __init__(self, *, response: AnyResponse, thumb: _UpOrDown, **common: Unpack[_Common]) -> None: ...
        def __init__(self, **values: Any) -> None: ...

    def as_rating(self) -> Rating:
        """Returns the rating that this is."""
        return Rating(
            user_id=self.user_id,
            prompt=self.prompt,
            response=self.response,
            value=1.0 if self.up else -1.0,
            strength=self.strength,
            event_id=self.event_id,
            created_at=self.created_at,
        )


def _in_order(value: Any) -> Any:
    # Checked before the single responses are; a set would pass for a tuple, and has no order.
    if isinstance(value, str) or not isinstance(value, Sequence) or not 2 <= len(value) <= MOST_RANKED:
        raise ValueError(f"expected a list of 2 to {MOST_RANKED} responses, best first")
    return value


_Ordered: TypeAlias = Annotated[list[Side], Field(min_length=2, max_length=MOST_RANKED)]


class Ranking(_Judgement):
    """One user's order of several responses, stored as the comparisons that it consists of.

    Args:
        user_id: the host's own name of the user, at most 255 characters.
        prompt: ``None``, a text, or chat messages ``[{"role", "content", …}]`` as OpenAI and TRL write them.
        responses: best first, 2 to 50 different ones, each a text, a :class:`~mrm_sdk.Response`, or a chat message.
            Data sets call it ``ranking``, which is taken too.
        strength: how much this judgement counts, 1 for an ordinary one, in (0, 100].
        event_id: makes recording idempotent, at most 250 characters; a new UUIDv7 by default.
        created_at: when the user judged, with a time zone, at most a day ahead of this clock; now by default.

    Raises:
        InvalidInputError: a field is missing, unknown or out of range, or a response appears twice.
        EmbeddingError: an embedding is not one finite vector.

    Example:
        >>> from mrm_sdk import Ranking
        >>> ranking = Ranking(user_id="ada", responses=["A phone book.", "A directory.", "See RFC 1034."])
        >>> [(c.chosen, c.rejected) for c in ranking.comparisons()][:2]
        [('A phone book.', 'A directory.'), ('A phone book.', 'See RFC 1034.')]
    """

    responses: Annotated[
        tuple[Side, ...],
        Field(validation_alias=AliasChoices("responses", "ranking"), description="or: ranking"),
        BeforeValidator(_in_order, json_schema_input_type=_Ordered),
    ]

    if TYPE_CHECKING:

        @overload
        def __init__(self, *, responses: Sequence[AnyResponse], **common: Unpack[_Common]) -> None: ...
        @overload
        def __init__(self, *, ranking: Sequence[AnyResponse], **common: Unpack[_Common]) -> None: ...
        def __init__(self, **values: Any) -> None: ...

    @field_validator("responses")
    @classmethod
    def _different(cls, responses: tuple[str | Response, ...]) -> tuple[str | Response, ...]:
        first: dict[bytes, int] = {}
        for index, response in enumerate(responses):
            before = first.setdefault(Item.of(None, response).key, index)
            if before != index:
                raise ValueError(f"each response may appear once; those at {before} and {index} are the same")
        return responses

    @field_validator("event_id")
    @classmethod
    def _has_room(cls, event_id: str) -> str:
        if len(event_id) > _MAX_RANKING_ID:
            raise ValueError(f"the id of a ranking may have {_MAX_RANKING_ID} characters, for its comparisons add some")
        return event_id

    @property
    def pairs(self) -> int:
        """How many comparisons it makes: n (n − 1) / 2."""
        return len(self.responses) * (len(self.responses) - 1) // 2

    def comparisons(self) -> list[Comparison]:
        """All pairs of the n responses, each of strength 2/n: together they count as n − 1 comparisons.

        The first comparison carries the ranking's own event id, the others ``event_id#1``, ``event_id#2`` and so on.
        """
        return [
            Comparison(
                user_id=self.user_id,
                prompt=self.prompt,
                chosen=better,
                rejected=worse,
                strength=self.strength * 2 / len(self.responses),
                event_id=part_id(self.event_id, number),
                created_at=self.created_at,
            )
            for number, (better, worse) in enumerate(combinations(self.responses, 2))
        ]


def part_id(event_id: str, number: int) -> str:
    """The event id of a ranking's comparison; the first keeps the ranking's own, so that no other event may have it."""
    return f"{event_id}#{number}" if number else event_id


Feedback: TypeAlias = Comparison | Rating | Thumb | Ranking
