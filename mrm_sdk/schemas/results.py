"""What a client gives back: counts, weights, ranks; frozen."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Generic, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializeAsAny,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from typing_extensions import TypeVar

from mrm_sdk.schemas.frozen import SERIALISED_MATRIX, SERIALISED_VECTOR, Frozen, read_only
from mrm_sdk.schemas.items import Response


def _array(values: Any) -> Any:
    return values if values is None else read_only(values)


Vector = Annotated[NDArray[np.float64], BeforeValidator(_array, json_schema_input_type=list[float]), SERIALISED_VECTOR]
Matrix = Annotated[
    NDArray[np.float64], BeforeValidator(_array, json_schema_input_type=list[list[float]]), SERIALISED_MATRIX
]
ResponseT_co = TypeVar("ResponseT_co", covariant=True, default=str | Response)


class Refusal(NamedTuple):
    """Feedback that was not stored: its index in the call, and the reason."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which makes no sense on a refusal
    reason: str


class Recorded(Frozen):
    """Counts of recorded feedback; a ranking counts as one, however many comparisons it makes.

    Args:
        accepted: how many were stored, and are durable.
        duplicates: how many had been recorded before.
        rejected: which ones were refused, by their index in the call, and why.
    """

    accepted: int
    duplicates: int
    rejected: tuple[Refusal, ...] = ()


class Counted(Frozen):
    """What moved a user's weights, by kind; 0 where nothing did. Old judgements that a half-life fades to 0 do not.

    Args:
        comparisons: those of rankings included.
        rating_pairs: pairs of ratings of the same prompt; n ratings count as n − 1 comparisons together, however many
            pairs they make.
        ratings_alone: ratings and thumbs that were held against the user's own threshold; those of one prompt count as
            one comparison together. Always 0 under ``gradient`` adaptation, which has no threshold.
    """

    comparisons: int
    rating_pairs: int
    ratings_alone: int


class UserReward(Frozen):
    """One user's reward model: ``r(x, y) = weights · φ(x, y)``.

    Args:
        user_id: of the user.
        weights: [K] float64.
        covariance: [K, K] float64, the Laplace posterior covariance; ``None`` under ``gradient`` adaptation.
        comparisons: how many comparisons and ratings the weights were adapted to; 0 means the prior. A ranking of n
            counts as the n (n − 1) / 2 comparisons that it makes, and only the newest rating of a response counts.
        counted: which of them moved the weights, and how.
        revision: how often these weights were stored; 0 means never.
        fingerprint: of the bundle that the weights belong to.
    """

    user_id: str
    weights: Vector
    covariance: Matrix | None = Field(repr=False)
    comparisons: int
    counted: Counted
    revision: int
    fingerprint: str


def _as_given(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """A response as the host gave it; a text, or what JSON says of a :class:`Response`, is checked."""
    is_own = isinstance(value, str) or (isinstance(value, dict) and value.keys() <= Response.model_fields.keys())
    return validate(value) if is_own else value


class Ranked(Frozen, Generic[ResponseT_co]):
    """A response, ranked; ``Ranked[str]`` where texts were ranked, ``Ranked[Response]`` where responses were.

    Args:
        index: in the list of responses.
        score: its reward for the user; only differences mean anything.
        response: the response itself, as it was given.
    """

    index: int
    score: float
    response: Annotated[ResponseT_co, WrapValidator(_as_given), SerializeAsAny()]


class WeightsSummary(Frozen):
    """How far a user's weights under one bundle have come.

    Args:
        judgements: how many comparisons and ratings they were adapted to, as ``comparisons`` of :class:`UserReward`.
        counted: which of them moved the weights, and how; ``None`` of weights that an earlier version stored.
        revision: how often they were stored.
        current: whether they have seen all feedback so far; others are adapted again when they are next needed.
    """

    judgements: int
    counted: Counted | None
    revision: int
    current: bool


class UserSummary(Frozen):
    """What is known of a user, without any text.

    Args:
        user_id: of the user.
        comparisons: how many are stored; a ranking of n counts as the n (n − 1) / 2 that it makes.
        ties: how many of the comparisons are ties.
        ratings: how many are stored, thumbs among them.
        first_at: when the first of these events happened, by ``created_at``; ``None`` without any.
        newest_at: when the newest did.
        forgotten_at: when the user was forgotten last; ``None``: never.
        weights: by fingerprint of the bundle, the stored weights.
    """

    user_id: str
    comparisons: int
    ties: int
    ratings: int
    first_at: AwareDatetime | None
    newest_at: AwareDatetime | None
    forgotten_at: AwareDatetime | None
    weights: Annotated[
        Mapping[str, WeightsSummary],
        AfterValidator(MappingProxyType),
        PlainSerializer(dict, return_type=dict[str, WeightsSummary]),
    ]


class Forgotten(Frozen):
    """How many rows of each table were deleted with a user."""

    user_id: str
    rows: Annotated[Mapping[str, int], AfterValidator(MappingProxyType), PlainSerializer(dict, return_type=dict)]


class RefusedEvent(NamedTuple):
    """A stored event that waits for a text which the encoder does not take."""

    event_id: str
    user_id: str
    reason: str


class Rebuilt(Frozen):
    """What a rebuild computed.

    Args:
        items: encoded.
        comparisons: whose features were stored.
        users: adapted, or up to date.
        refused: events of texts that the encoder does not take; they stay stored, and the next rebuild tries again.
    """

    items: int
    comparisons: int
    users: int
    refused: tuple[RefusedEvent, ...] = ()


class Pruned(Frozen):
    """How many rows of each table were deleted, and the time before which events are now refused."""

    before: AwareDatetime
    rows: Annotated[Mapping[str, int], AfterValidator(MappingProxyType), PlainSerializer(dict, return_type=dict)]
