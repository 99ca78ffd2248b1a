"""Feedback of a host becomes stored events, a chunk per transaction; loads neither torch nor a bundle by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from mrm_sdk.errors import EncoderError, InvalidInputError, MrmError, TextRefusedError
from mrm_sdk.schemas.feedback import Feedback, Ranking
from mrm_sdk.schemas.items import Item, Prompt, Response
from mrm_sdk.schemas.results import Recorded, Refusal
from mrm_sdk.storage.events import AnyEvent, Outcome, event_of
from mrm_sdk.storage.store import Store

if TYPE_CHECKING:
    from mrm_sdk.engine.features import Featurizer

_T = TypeVar("_T")


def record(featurizer: Featurizer, feedback: Iterable[Feedback]) -> Iterator[tuple[int, Outcome]]:
    """Stores feedback with its features, and yields the index and outcome of each once it is durable.

    Args:
        featurizer: computes the features, and names the store.
        feedback: any number, read a chunk at a time.

    Raises:
        EncoderError: the encoder failed; what was yielded before stays stored.
        DatabaseError: the database refused; what was yielded before stays stored.
    """
    for chunk in in_chunks(feedback, featurizer.settings.chunk_size):
        refused: list[tuple[int, Outcome]] = []
        events: list[tuple[int, AnyEvent]] = []
        item_of = _CheckedItems(featurizer)
        for index, judgement in chunk:
            try:
                events.append((index, event_of(_checked(judgement), item_of)))
            except (InvalidInputError, EncoderError) as error:
                refused.append((index, Outcome(False, error)))
        reasons: dict[bytes, str] = {}
        rewards = featurizer.base_rewards((item for _, event in events for item in event.items), reasons)
        errors: dict[bytes, MrmError] = {key: TextRefusedError(reason) for key, reason in reasons.items()}
        errors |= {key: featurizer.overflow_error() for key, row in rewards.items() if not featurizer.is_usable(row)}
        bad = {index: key for index, event in events for item in event.items if (key := item.key) in errors}
        refused += [(index, Outcome(False, errors[key])) for index, key in bad.items()]
        events = [(index, event) for index, event in events if index not in bad]
        outcomes = featurizer.store.add(
            [event for _, event in events], features_hash=featurizer.features_hash, base_rewards=rewards
        )
        yield from sorted([*refused, *zip((index for index, _ in events), outcomes, strict=True)])


def record_without_features(
    store: Store, feedback: Iterable[Feedback], chunk_size: int
) -> Iterator[tuple[int, Outcome]]:
    """Stores feedback without a bundle, and yields the index and outcome of each once it is durable.

    A client with a bundle computes the features when it first adapts the users.

    Raises:
        ConfigurationError: the store keeps no text, so features could never be computed.
        DatabaseError: the database refused; what was yielded before stays stored.
    """
    for chunk in in_chunks(feedback, chunk_size):
        outcomes = store.add([event_of(judgement) for _, judgement in chunk])
        yield from zip((index for index, _ in chunk), outcomes, strict=True)


def summarise(outcomes: Iterable[tuple[int, Outcome]]) -> Recorded:
    """Counts outcomes for the host."""
    accepted, duplicates, refusals = 0, 0, []
    for index, outcome in outcomes:
        accepted += outcome.accepted
        duplicates += not outcome.accepted and outcome.error is None
        if outcome.error is not None:
            refusals.append(Refusal(index, str(outcome.error)))
    return Recorded(accepted=accepted, duplicates=duplicates, rejected=tuple(refusals))


def in_chunks(feedback: Iterable[_T], size: int) -> Iterator[list[tuple[int, _T]]]:
    """Numbers feedback and cuts it into chunks of at least ``size`` rows; a ranking has many rows and stays whole."""
    chunk: list[tuple[int, _T]] = []
    rows = 0
    for numbered in enumerate(feedback):
        chunk.append(numbered)
        rows += numbered[1].pairs if isinstance(numbered[1], Ranking) else 1
        if rows >= size:
            yield chunk
            chunk, rows = [], 0
    if chunk:
        yield chunk


def _checked(judgement: object) -> Feedback:
    if isinstance(judgement, Feedback):
        return judgement
    raise InvalidInputError(f"Expected a Comparison, Rating, Thumb or Ranking, not {type(judgement).__name__}.")


class _CheckedItems:
    """Makes the items of one chunk and checks them; a response that is repeated is hashed once."""

    def __init__(self, featurizer: Featurizer) -> None:
        self._featurizer = featurizer
        self._items: dict[tuple[Prompt, str | int], tuple[str | Response, Item]] = {}

    def __call__(self, prompt: Prompt, response: str | Response) -> Item:
        key = prompt, response if isinstance(response, str) else id(response)
        known = self._items.get(key)
        if known is None:
            item = Item.of(prompt, response)
            self._featurizer.check(item)
            # The response is kept as well: its id stays its own only as long as it lives.
            known = self._items[key] = response, item
        return known[1]
