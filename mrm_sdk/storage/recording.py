"""Recording feedback where no bundle is at hand, and counting what became of any; imports the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from mrm_sdk.schemas.feedback import Feedback, Ranking
from mrm_sdk.schemas.results import Recorded, Refusal
from mrm_sdk.storage.events import Outcome, event_of
from mrm_sdk.storage.store import Store

_T = TypeVar("_T")


def in_chunks(feedback: Iterable[_T], size: int) -> Iterator[list[tuple[int, _T]]]:
    """Numbers feedback and cuts it into parts of ``size`` rows or just above: a ranking has many, and stays whole."""
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


def observe_unencoded(store: Store, feedback: Iterable[Feedback], chunk_size: int) -> Iterator[tuple[int, Outcome]]:
    """Stores feedback without a bundle at hand, and yields each one's index and outcome once it is durable.

    Features are computed when a client with a bundle first adapts the users.
    """
    for chunk in in_chunks(feedback, chunk_size):
        outcomes = store.add([event_of(given) for _, given in chunk])
        yield from zip((index for index, _ in chunk), outcomes, strict=True)


def collect(outcomes: Iterable[tuple[int, Outcome]]) -> Recorded:
    """Counts outcomes for the host."""
    accepted, duplicates, refusals = 0, 0, []
    for index, outcome in outcomes:
        accepted += outcome.accepted
        duplicates += not outcome.accepted and outcome.error is None
        if outcome.error is not None:
            refusals.append(Refusal(index, str(outcome.error)))
    return Recorded(accepted=accepted, duplicates=duplicates, rejected=tuple(refusals))
