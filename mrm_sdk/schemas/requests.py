"""What a client is asked to score: responses to one prompt, for one user."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import BeforeValidator

from mrm_sdk.errors import EncoderError, InvalidInputError
from mrm_sdk.schemas.frozen import Frozen, Identifier, identifier
from mrm_sdk.schemas.items import AnyResponse, Item, Prompt, PromptField, Response, Side, prompt_text


def _listed(value: Any) -> Any:
    if isinstance(value, str | Response) or not isinstance(value, Sequence):
        raise ValueError(f"Responses must be a list of them, not a {type(value).__name__}.")
    return value


class ScoreRequest(Frozen):
    """Responses to one prompt that are to be scored for one user, as one of many (:meth:`mrm_sdk.Client.score_many`).

    Args:
        user_id: the host's own name of the user, at most 255 characters.
        responses: any number, each a text, a :class:`~mrm_sdk.Response`, or a chat message.
        prompt: ``None``, a text, or chat messages ``[{"role", "content", …}]`` as OpenAI and TRL write them.

    Raises:
        InvalidInputError: a field is missing, unknown or of a wrong type.
        EmbeddingError: an embedding is not one finite vector.

    Example:
        >>> from mrm_sdk import ScoreRequest
        >>> ScoreRequest(user_id="ada", responses=["A phone book.", "See RFC 1034."], prompt="What is DNS?").responses
        ('A phone book.', 'See RFC 1034.')
    """

    user_id: Identifier
    responses: Annotated[tuple[Side, ...], BeforeValidator(_listed, json_schema_input_type=list[Side])]
    prompt: PromptField = None

    if TYPE_CHECKING:

        def __init__(self, *, user_id: str, responses: Sequence[AnyResponse], prompt: Prompt = None) -> None: ...


AnyScoreRequest: TypeAlias = (
    ScoreRequest | tuple[str, Sequence[AnyResponse]] | tuple[str, Sequence[AnyResponse], Prompt]
)


def items_of(prompt: Prompt, responses: Sequence[AnyResponse]) -> list[Item]:
    """The items of responses to one prompt.

    Raises:
        InvalidInputError: the responses are no list, or one of them or the prompt is of a wrong type.
    """
    try:
        _listed(responses)
    except ValueError as error:
        raise InvalidInputError(str(error)) from None
    prompt = prompt_text(prompt)
    return [Item.of(prompt, response) for response in responses]


def scorable(request: AnyScoreRequest) -> tuple[str, list[Item]]:
    """User and items of a request.

    Raises:
        InvalidInputError: it is neither a :class:`ScoreRequest` nor a tuple of what one holds.
    """
    if isinstance(request, ScoreRequest):
        return request.user_id, items_of(request.prompt, request.responses)
    if not isinstance(request, tuple) or len(request) not in (2, 3):
        kind = f"a tuple of {len(request)}" if isinstance(request, tuple) else type(request).__name__
        raise InvalidInputError(
            f"expected a ScoreRequest, or a tuple (user_id, responses) or (user_id, responses, prompt), not {kind}."
        )
    user_id, responses, prompt = (*request, None)[:3]
    return identifier("user_id", user_id), items_of(prompt, responses)


@contextmanager
def numbered(what: str, number: int) -> Iterator[None]:
    """Says in an error of the block which one of many it is about; type and attributes stay.

    Args:
        what: they are.
        number: of this one, from 0.
    """
    try:
        yield
    except (InvalidInputError, EncoderError) as error:
        # Not through the constructor, which may be a host's own and take other arguments, and would lose what it holds.
        told = type(error).__new__(type(error))
        told.__dict__.update(error.__dict__)
        told.args = (f"{what} {number}: {error}",)
        raise told from None
