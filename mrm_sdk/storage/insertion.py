"""Writing events and their features, row by row; imports the tables and SQLAlchemy."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.dialects import postgresql, sqlite

from mrm_sdk.storage.records import AnyEvent, Event, RankingEvent, RatingEvent
from mrm_sdk.storage.tables import (
    ComparisonFeaturesRow,
    ComparisonRow,
    ItemFeaturesRow,
    ItemRow,
    RatingRow,
    UserRow,
)


def insert_into(dialect: str, table: type) -> Any:
    """An INSERT that can say ON CONFLICT, which both databases spell alike but SQLAlchemy keeps apart."""
    return (postgresql if dialect == "postgresql" else sqlite).insert(table)


def insert_events(
    connection: sa.Connection,
    tenant: str,
    events: Sequence[AnyEvent],
    *,
    store_text: bool,
) -> None:
    """Writes events that are not there yet, with their users and items, without features.

    Args:
        connection: in a writing transaction.
        tenant: whose.
        events: at least one.
        store_text: whether of a new item more than its hash is written: prompt, text and embedding.
    """
    # Rows are touched in a fixed order, so that two writers seldom wait for each other.
    users = insert_into(connection.dialect.name, UserRow).on_conflict_do_update(
        index_elements=["tenant", "user_id"], set_={"feedback": UserRow.feedback + 1}
    )
    # A user starts at a random number: somebody who was forgotten and comes back never stands where weights that
    # were computed before could be taken for current ones.
    names = sorted({event.source.user_id for event in events})
    connection.execute(
        users, [{"tenant": tenant, "user_id": name, "feedback": 1 + secrets.randbits(52)} for name in names]
    )
    items = {item.key: item for event in events for item in event.items}
    connection.execute(
        insert_into(connection.dialect.name, ItemRow).on_conflict_do_nothing(),
        [
            {
                "tenant": tenant,
                "item_key": key,
                "prompt": items[key].prompt if store_text else None,
                "response": items[key].text if store_text else None,
                "embedding": to_bytes(items[key].embedding) if store_text else None,
            }
            for key in sorted(items)
        ],
    )
    comparisons = [e for event in events for e in _comparisons(event)]
    if comparisons:
        rows = sorted((_comparison_row(tenant, event) for event in comparisons), key=_by_id)
        connection.execute(sa.insert(ComparisonRow), rows)
    ratings = [_rating_row(tenant, event) for event in events if isinstance(event, RatingEvent)]
    if ratings:
        connection.execute(sa.insert(RatingRow), sorted(ratings, key=_by_id))


def insert_features_of(
    connection: sa.Connection,
    tenant: str,
    events: Sequence[AnyEvent],
    features: str,
    base_rewards: Mapping[bytes, NDArray[np.float32]],
) -> None:
    """Writes ``z`` and base rewards of events that are stored, as far as they are known and not there yet."""
    parts = [part for event in events for part in _comparisons(event)]
    z = {part.comparison.event_id: part.z for part in parts if part.z is not None}
    present = {item.key for event in events for item in event.items} & base_rewards.keys()
    insert_features(connection, tenant, features, z, {key: base_rewards[key] for key in present})


def insert_features(
    connection: sa.Connection,
    tenant: str,
    features: str,
    z: Mapping[str, NDArray[np.float32]],
    base_rewards: Mapping[bytes, NDArray[np.float32]],
) -> None:
    """Writes ``z`` by event id and base rewards by item key, of rows that exist; what is there already stays."""
    common = {"tenant": tenant, "features": features}
    if base_rewards:
        connection.execute(
            insert_into(connection.dialect.name, ItemFeaturesRow).on_conflict_do_nothing(),
            [{**common, "item_key": k, "base_rewards": to_bytes(base_rewards[k])} for k in sorted(base_rewards)],
        )
    if z:
        connection.execute(
            insert_into(connection.dialect.name, ComparisonFeaturesRow).on_conflict_do_nothing(),
            [{**common, "event_id": event_id, "z": to_bytes(value)} for event_id, value in sorted(z.items())],
        )


def to_bytes(array: NDArray[Any] | None) -> bytes | None:
    """A vector as a database holds it."""
    return None if array is None else array.tobytes()


def _comparisons(event: AnyEvent) -> Sequence[Event]:
    if isinstance(event, RankingEvent):
        return event.parts
    return [event] if isinstance(event, Event) else []


def _comparison_row(tenant: str, event: Event) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "event_id": event.comparison.event_id,
        "user_id": event.comparison.user_id,
        "chosen": event.chosen.key,
        "rejected": event.rejected.key,
        "tie": event.comparison.tie,
        "strength": event.comparison.strength,
        "created_at": event.comparison.created_at,
        "content": event.content,
    }


def _rating_row(tenant: str, event: RatingEvent) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "event_id": event.source.event_id,
        "user_id": event.source.user_id,
        "item_key": event.item.key,
        "prompt_key": event.item.prompt_key,
        "value": event.source.value,
        "strength": event.source.strength,
        "created_at": event.source.created_at,
        "content": event.content,
    }


def _by_id(row: Mapping[str, Any]) -> str:
    return str(row["event_id"])
