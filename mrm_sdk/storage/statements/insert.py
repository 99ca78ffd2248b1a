"""Writing events and their features, row by row; imports the tables and SQLAlchemy."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from mrm_sdk.schemas.items import Item
from mrm_sdk.storage.events import AnyEvent, Event, RankingEvent, RatingEvent, StoredWeights
from mrm_sdk.storage.statements.bulk import insert_into, insert_rows, moments
from mrm_sdk.storage.tables import (
    ComparisonFeaturesRow,
    ComparisonRow,
    ItemFeaturesRow,
    ItemRow,
    RatingRow,
    UserRow,
    UserWeightsRow,
)

_DIALECTS = ("sqlite", "postgresql")
_COUNT_UP = {
    dialect: insert_into(dialect, UserRow).on_conflict_do_update(
        index_elements=["tenant", "user_id"], set_={"feedback": UserRow.feedback + 1}
    )
    for dialect in _DIALECTS
}


_ITEMS = {dialect: insert_into(dialect, ItemRow).on_conflict_do_nothing() for dialect in _DIALECTS}
_ITEM_FEATURES = {dialect: insert_into(dialect, ItemFeaturesRow).on_conflict_do_nothing() for dialect in _DIALECTS}
_COMPARISON_FEATURES = {
    dialect: insert_into(dialect, ComparisonFeaturesRow).on_conflict_do_nothing() for dialect in _DIALECTS
}
_COMPARISONS, _RATINGS = sa.insert(ComparisonRow), sa.insert(RatingRow)


_U, _W = UserRow, UserWeightsRow
# Beside feedback that is still as it was: not for somebody who was forgotten, or has said more since. No parameter
# bears the name of a column, for those an UPDATE keeps to itself.
_KEY: dict[str, Any] = {name: sa.bindparam(f"of_{name}") for name in ("tenant", "user_id", "fingerprint")}
_VALUES: dict[str, Any] = {
    name: sa.bindparam(f"new_{name}", type_=_W.__table__.c[name].type)
    for name in ("weights", "covariance", "comparisons", "feedback", "revision")
}
_CURRENT = sa.exists().where(
    _U.tenant == _KEY["tenant"], _U.user_id == _KEY["user_id"], _U.feedback == _VALUES["feedback"]
)
# What is returned was written; row counts mean different things to different drivers.
_FIRST_WEIGHTS = {
    dialect: insert_into(dialect, _W)
    .from_select([*_KEY, *_VALUES], sa.select(*_KEY.values(), *_VALUES.values()).where(_CURRENT))
    .on_conflict_do_nothing()
    .returning(_W.revision)
    for dialect in _DIALECTS
}
_NEXT_WEIGHTS = (
    sa.update(_W)
    .where(*(getattr(_W, name) == value for name, value in _KEY.items()), _W.revision == _VALUES["revision"] - 1)
    .where(_CURRENT)
    .values(_VALUES)
    .returning(_W.revision)
)


def save_weights(
    connection: sa.Connection, tenant: str, user_id: str, fingerprint: str, weights: StoredWeights
) -> bool:
    """Writes weights where revision and feedback are still those that they were computed from; tells whether."""
    statement: Any = _FIRST_WEIGHTS[connection.dialect.name] if weights.revision == 1 else _NEXT_WEIGHTS
    values = {
        "of_tenant": tenant,
        "of_user_id": user_id,
        "of_fingerprint": fingerprint,
        "new_weights": to_bytes(weights.weights),
        "new_covariance": to_bytes(weights.covariance),
        "new_comparisons": weights.comparisons,
        "new_feedback": weights.feedback,
        "new_revision": weights.revision,
    }
    return connection.execute(statement, values).first() is not None


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
    # Rows are touched in a fixed order, so that two writers seldom wait for each other. A user starts at a random
    # number: somebody who was forgotten and comes back never stands where weights that were computed before could be
    # taken for current ones.
    names = sorted({event.source.user_id for event in events})
    connection.execute(
        _COUNT_UP[connection.dialect.name],
        [{"tenant": tenant, "user_id": name, "feedback": 1 + secrets.randbits(52)} for name in names],
    )
    items = {item.key: item for event in events for item in event.items}
    rows = [_item_row(tenant, key, items[key], store_text) for key in sorted(items)]
    insert_rows(connection, _ITEMS[connection.dialect.name], rows)
    moment = moments(connection)
    comparisons = (part for event in events for part in _comparisons(event))
    insert_rows(connection, _COMPARISONS, sorted(_comparison_row(tenant, part, moment) for part in comparisons))
    ratings = (event for event in events if isinstance(event, RatingEvent))
    insert_rows(connection, _RATINGS, sorted(_rating_row(tenant, rating, moment) for rating in ratings))


def insert_features_of(
    connection: sa.Connection,
    tenant: str,
    events: Sequence[AnyEvent],
    features: str,
    base_rewards: Mapping[bytes, NDArray[np.float32]],
) -> None:
    """Writes base rewards of stored events' items, and the ``z`` of their comparisons, as far as they are known."""
    present = {item.key for event in events for item in event.items} & base_rewards.keys()
    known = {key: base_rewards[key] for key in present}
    if not known:
        return
    parts = [part for event in events for part in _comparisons(event)]
    parts = [part for part in parts if part.chosen.key in known and part.rejected.key in known]
    # All differences in one subtraction: thousands of small ones would take longer than the database does.
    row = {key: number for number, key in enumerate(known)}
    rewards = np.stack(list(known.values()))
    z = rewards[[row[part.chosen.key] for part in parts]] - rewards[[row[part.rejected.key] for part in parts]]
    insert_features(
        connection, tenant, features, dict(zip((part.source.event_id for part in parts), z, strict=True)), known
    )


def insert_features(
    connection: sa.Connection,
    tenant: str,
    features: str,
    z: Mapping[str, NDArray[np.float32]],
    base_rewards: Mapping[bytes, NDArray[np.float32]],
) -> None:
    """Writes ``z`` by event id and base rewards by item key, of rows that exist; what is there already stays."""
    rows = [(tenant, key, features, base_rewards[key].tobytes()) for key in sorted(base_rewards)]
    insert_rows(connection, _ITEM_FEATURES[connection.dialect.name], rows)
    differences = [(tenant, event_id, features, z[event_id].tobytes()) for event_id in sorted(z)]
    insert_rows(connection, _COMPARISON_FEATURES[connection.dialect.name], differences)


def to_bytes(array: NDArray[Any] | None) -> bytes | None:
    """A vector as a database holds it."""
    return None if array is None else array.tobytes()


def _comparisons(event: AnyEvent) -> Sequence[Event]:
    if isinstance(event, RankingEvent):
        return event.parts
    return [event] if isinstance(event, Event) else []


def _item_row(tenant: str, key: bytes, item: Item, store_text: bool) -> tuple[Any, ...]:
    if not store_text:
        return tenant, key, None, None, None
    return tenant, key, item.prompt, item.text, to_bytes(item.embedding)


def _comparison_row(tenant: str, event: Event, moment: Callable[[datetime], Any]) -> tuple[Any, ...]:
    c = event.comparison
    sides = event.chosen.key, event.rejected.key
    return tenant, c.event_id, c.user_id, *sides, c.tie, c.strength, moment(c.created_at), event.content


def _rating_row(tenant: str, event: RatingEvent, moment: Callable[[datetime], Any]) -> tuple[Any, ...]:
    r = event.source
    item = event.item.key, event.item.prompt_key
    return tenant, r.event_id, r.user_id, *item, r.value, r.strength, moment(r.created_at), event.content
