"""Recording comparisons where no bundle is at hand, and counting what became of any; imports the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from mrm_sdk.schemas import Comparison, Item, Recorded, Refusal
from mrm_sdk.storage.records import Event, Outcome
from mrm_sdk.storage.store import Store


def observe_unencoded(
    store: Store, comparisons: Iterable[Comparison], chunk_size: int
) -> Iterator[tuple[int, Outcome]]:
    """Stores comparisons without a bundle at hand, and yields each one's index and outcome once it is durable.

    Their feature differences are computed when a client with a bundle first adapts their users.
    """
    numbered = enumerate(comparisons)
    while chunk := list(islice(numbered, chunk_size)):
        events = [Event(c, Item.of(c.prompt, c.chosen), Item.of(c.prompt, c.rejected)) for _, c in chunk]
        yield from zip((index for index, _ in chunk), store.add(events), strict=True)


def collect(outcomes: Iterable[tuple[int, Outcome]]) -> Recorded:
    """Counts outcomes for the host."""
    accepted, duplicates, refusals = 0, 0, []
    for index, outcome in outcomes:
        accepted += outcome.accepted
        duplicates += not outcome.accepted and outcome.error is None
        if outcome.error is not None:
            refusals.append(Refusal(index, str(outcome.error)))
    return Recorded(accepted=accepted, duplicates=duplicates, rejected=tuple(refusals))
