"""DELETE: a user, from every table, and items that no event refers to any more."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from mrm_sdk.schemas.frozen import uuid7
from mrm_sdk.storage.tables import (
    ComparisonFeaturesRow,
    ComparisonRow,
    ItemFeaturesRow,
    ItemRow,
    OutboxRow,
    RatingRow,
    TombstoneRow,
    UserRow,
    UserWeightsRow,
)

_KEYS_PER_STATEMENT = 1_000
_C, _R = ComparisonRow, RatingRow

# Statements are built once: building one costs more than running it. No parameter has the name of a column.
_TENANT: Any = sa.bindparam("of_tenant")
_USER: Any = sa.bindparam("of_user")
_KEYS: Any = sa.bindparam("keys", expanding=True)


def _of_user(table: Any) -> Any:
    return (table.tenant == _TENANT) & (table.user_id == _USER)


_FEATURES = sa.delete(ComparisonFeaturesRow).where(
    ComparisonFeaturesRow.tenant == _TENANT,
    ComparisonFeaturesRow.event_id.in_(sa.select(_C.event_id).where(_of_user(_C))),
)
_COMPARISONS = sa.delete(_C).where(_of_user(_C)).returning(_C.created_at, _C.chosen, _C.rejected)
_RATINGS = sa.delete(_R).where(_of_user(_R)).returning(_R.created_at, _R.item_key)
_OTHERS = [(table, sa.delete(table).where(_of_user(table))) for table in (UserWeightsRow, OutboxRow, UserRow)]
_OLD_TOMBSTONE = sa.delete(TombstoneRow).where(_of_user(TombstoneRow)).returning(TombstoneRow.forgotten_at)
_TOMBSTONE = sa.insert(TombstoneRow)


def no_row_has(tenant: Any, column: Any, value: Any) -> Any:
    """Condition: no row of the tenant has the outer statement's ``value`` in ``column``; looked up in an index.

    ``NOT EXISTS`` means the same, but PostgreSQL turns it into a join, and may read the whole table for each row while
    it has no statistics yet.
    """
    table = column.parent.class_
    row = sa.select(sa.literal(1)).where(table.tenant == tenant, column == value).limit(1)
    return row.correlate(value.parent.class_).scalar_subquery().is_(None)


def _unjudged(table: Any) -> Any:
    """Deletes the given items, except those that an event of the tenant refers to."""
    sides = (_C.chosen, _C.rejected, _R.item_key)
    unjudged = (no_row_has(_TENANT, side, table.item_key) for side in sides)
    return sa.delete(table).where(table.tenant == _TENANT, table.item_key.in_(_KEYS), *unjudged)


_ITEMS = [(table, _unjudged(table)) for table in (ItemFeaturesRow, ItemRow)]


def delete_user(connection: sa.Connection, tenant: str, user_id: str) -> dict[str, int]:
    """Deletes a user's rows and the items that no other user judged, which are the user's text; leaves a tombstone.

    The caller's transaction must keep other writers of the tenant out.

    Returns:
        Rows deleted, by table.
    """
    parameters = {"of_tenant": tenant, "of_user": user_id}
    counts = {ComparisonFeaturesRow.__tablename__: connection.execute(_FEATURES, parameters).rowcount}
    moment, keys = datetime.now(UTC), set[bytes]()
    for judge, statement in ((_C, _COMPARISONS), (_R, _RATINGS)):
        events = connection.execute(statement, parameters).all()
        counts[judge.__tablename__] = len(events)
        # A clock ahead of this one may have dated an event later than now; it must stay out as well.
        moment = max([moment, *(event.created_at for event in events)])
        keys.update(key for _, *items in events for key in items)
    counts |= {table.__tablename__: connection.execute(statement, parameters).rowcount for table, statement in _OTHERS}
    counts |= delete_unjudged_items(connection, tenant, keys)
    # A second deletion must not move the tombstone back.
    moment = max([moment, *connection.scalars(_OLD_TOMBSTONE, parameters)])
    tombstone = {"tenant": tenant, "user_id": user_id, "event_id": uuid7(), "forgotten_at": moment}
    connection.execute(_TOMBSTONE, tombstone)
    return counts


def delete_unjudged_items(connection: sa.Connection, tenant: str, keys: Collection[bytes]) -> dict[str, int]:
    """Deletes the given items and their features, except items that an event still refers to.

    The caller's transaction must keep other writers of the tenant out.

    Returns:
        Rows deleted, by table.
    """
    counts = {table.__tablename__: 0 for table, _ in _ITEMS}
    ordered = sorted(keys)
    for start in range(0, len(ordered), _KEYS_PER_STATEMENT):
        parameters = {"of_tenant": tenant, "keys": ordered[start : start + _KEYS_PER_STATEMENT]}
        for table, statement in _ITEMS:
            counts[table.__tablename__] += connection.execute(statement, parameters).rowcount
    return counts
