"""INSERT: events, their features, and users' weights."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from mrm_sdk.schemas.items import Item
from mrm_sdk.storage.events import AnyEvent, ComparisonEvent, RankingEvent, RatingEvent, StoredWeights
from mrm_sdk.storage.statements.bulk import DIALECTS, insert_into, insert_rows, time_converter
from mrm_sdk.storage.tables import (
    ComparisonFeaturesRow,
    ComparisonRow,
    ItemFeaturesRow,
    ItemRow,
    RatingRow,
    UserRow,
    UserWeightsRow,
)

_COUNT_UP = {
    dialect: insert_into(dialect, UserRow).on_conflict_do_update(
        index_elements=["tenant", "user_id"], set_={"feedback": UserRow.feedback_version + 1}
    )
    for dialect in DIALECTS
}


_ITEMS = {dialect: insert_into(dialect, ItemRow).on_conflict_do_nothing() for dialect in DIALECTS}
_ITEM_FEATURES = {dialect: insert_into(dialect, ItemFeaturesRow).on_conflict_do_nothing() for dialect in DIALECTS}
_COMPARISON_FEATURES = {
    dialect: insert_into(dialect, ComparisonFeaturesRow).on_conflict_do_nothing() for dialect in DIALECTS
}
_COMPARISONS, _RATINGS = sa.insert(ComparisonRow), sa.insert(RatingRow)


_U, _W = UserRow, UserWeightsRow
# Weights are written only while the user's feedback version is unchanged: not for a user who was forgotten or has given
# more feedback since. No parameter has the name of a column: SQLAlchemy reserves those in an UPDATE.
_KEY: dict[str, Any] = {name: sa.bindparam(f"of_{name}") for name in ("tenant", "user_id", "fingerprint")}
_VALUES: dict[str, Any] = {
    name: sa.bindparam(f"new_{name}", type_=_W.__table__.c[name].type)
    for name in (
        *("weights", "covariance", "comparisons", "feedback", "revision"),
        *("compared", "rating_pairs", "ratings_alone"),
    )
}
_CURRENT = sa.exists().where(
    _U.tenant == _KEY["tenant"], _U.user_id == _KEY["user_id"], _U.feedback_version == _VALUES["feedback"]
)
# RETURNING tells whether a row was written; row counts mean different things to different drivers.
_FIRST_WEIGHTS = {
    dialect: insert_into(dialect, _W)
    .from_select([*_KEY, *_VALUES], sa.select(*_KEY.values(), *_VALUES.values()).where(_CURRENT))
    .on_conflict_do_nothing()
    .returning(_W.revision)
    for dialect in DIALECTS
}
_NEXT_WEIGHTS = (
    sa.update(_W)
    .where(*(getattr(_W, name) == value for name, value in _KEY.items()), _W.revision == _VALUES["revision"] - 1)
    .where(_CURRENT)
    .values(_VALUES)
    .returning(_W.revision)
)


def weights_statement(
    dialect: str, tenant: str, user_id: str, fingerprint: str, weights: StoredWeights
) -> tuple[sa.Executable, dict[str, Any]]:
    """The compare-and-set that writes weights, and its parameters; it returns a row only if it wrote one.

    It writes only if revision and feedback version are still those that the weights were computed from.
    """
    statement: sa.Executable = _FIRST_WEIGHTS[dialect] if weights.revision == 1 else _NEXT_WEIGHTS
    return statement, {
        "of_tenant": tenant,
        "of_user_id": user_id,
        "of_fingerprint": fingerprint,
        "new_weights": to_bytes(weights.weights),
        "new_covariance": to_bytes(weights.covariance),
        "new_comparisons": weights.comparisons,
        "new_feedback": weights.feedback_version,
        "new_revision": weights.revision,
        "new_compared": weights.counted.comparisons,
        "new_rating_pairs": weights.counted.rating_pairs,
        "new_ratings_alone": weights.counted.ratings_alone,
    }


def insert_events(
    connection: sa.Connection,
    tenant: str,
    events: Sequence[AnyEvent],
    *,
    store_text: bool,
) -> None:
    """Writes new events with their users and items, without features.

    Args:
        connection: in a writing transaction.
        tenant: of all rows.
        events: at least one.
        store_text: whether prompt, text and embedding of a new item are written, or only its hash.
    """
    # Rows are written in a fixed order, so that two writers seldom wait for each other. A user's version starts at a
    # random number: after a user was forgotten and returns, weights computed before never match the new version.
    user_ids = sorted({event.source.user_id for event in events})
    connection.execute(
        _COUNT_UP[connection.dialect.name],
        [{"tenant": tenant, "user_id": user_id, "feedback": 1 + secrets.randbits(52)} for user_id in user_ids],
    )
    items = {item.key: item for event in events for item in event.items}
    rows = [_item_row(tenant, key, items[key], store_text) for key in sorted(items)]
    insert_rows(connection, _ITEMS[connection.dialect.name], rows)
    to_driver = time_converter(connection)
    comparisons = (part for event in events for part in _comparisons(event))
    insert_rows(connection, _COMPARISONS, sorted(_comparison_row(tenant, part, to_driver) for part in comparisons))
    ratings = (event for event in events if isinstance(event, RatingEvent))
    insert_rows(connection, _RATINGS, sorted(_rating_row(tenant, rating, to_driver) for rating in ratings))


def insert_features_of(
    connection: sa.Connection,
    tenant: str,
    events: Sequence[AnyEvent],
    features_hash: str,
    base_rewards: Mapping[bytes, NDArray[np.float32]],
) -> None:
    """Writes the known base rewards of stored events' items, and ``z`` of comparisons whose two items are known."""
    present = {item.key for event in events for item in event.items} & base_rewards.keys()
    known = {key: base_rewards[key] for key in present}
    if not known:
        return
    parts = [part for event in events for part in _comparisons(event)]
    parts = [part for part in parts if part.chosen.key in known and part.rejected.key in known]
    # One subtraction for all pairs: thousands of small ones would take longer than the database.
    row = {key: number for number, key in enumerate(known)}
    rewards = np.stack(list(known.values()))
    z = rewards[[row[part.chosen.key] for part in parts]] - rewards[[row[part.rejected.key] for part in parts]]
    insert_features(
        connection, tenant, features_hash, dict(zip((part.source.event_id for part in parts), z, strict=True)), known
    )


def insert_features(
    connection: sa.Connection,
    tenant: str,
    features_hash: str,
    z: Mapping[str, NDArray[np.float32]],
    base_rewards: Mapping[bytes, NDArray[np.float32]],
) -> None:
    """Writes ``z`` by event id and base rewards by item key, of rows that exist; stored features stay as they are."""
    rows = [(tenant, key, features_hash, base_rewards[key].tobytes()) for key in sorted(base_rewards)]
    insert_rows(connection, _ITEM_FEATURES[connection.dialect.name], rows)
    differences = [(tenant, event_id, features_hash, z[event_id].tobytes()) for event_id in sorted(z)]
    insert_rows(connection, _COMPARISON_FEATURES[connection.dialect.name], differences)


def to_bytes(array: NDArray[Any] | None) -> bytes | None:
    """A vector as the database stores it."""
    return None if array is None else array.tobytes()


def _comparisons(event: AnyEvent) -> Sequence[ComparisonEvent]:
    if isinstance(event, RankingEvent):
        return event.parts
    return [event] if isinstance(event, ComparisonEvent) else []


def _item_row(tenant: str, key: bytes, item: Item, store_text: bool) -> tuple[Any, ...]:
    if not store_text:
        return tenant, key, None, None, None
    return tenant, key, item.prompt, item.text, to_bytes(item.embedding)


def _comparison_row(tenant: str, event: ComparisonEvent, to_driver: Callable[[datetime], Any]) -> tuple[Any, ...]:
    c = event.source
    sides = event.chosen.key, event.rejected.key
    return tenant, c.event_id, c.user_id, *sides, c.tie, c.strength, to_driver(c.created_at), event.content


def _rating_row(tenant: str, event: RatingEvent, to_driver: Callable[[datetime], Any]) -> tuple[Any, ...]:
    r = event.source
    item = event.item.key, event.item.prompt_key
    return tenant, r.event_id, r.user_id, *item, r.value, r.strength, to_driver(r.created_at), event.content
