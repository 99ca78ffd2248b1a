"""Deleting a user from every table, and items that nobody judges any more; imports the tables and SQLAlchemy."""

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

# Statements are built once: building one costs more than running it. No parameter bears the name of a column.
_TENANT: Any = sa.bindparam("of_tenant")
_USER: Any = sa.bindparam("of_user")
_KEYS: Any = sa.bindparam("keys", expanding=True)


def _mine(table: Any) -> Any:
    return (table.tenant == _TENANT) & (table.user_id == _USER)


_FEATURES = sa.delete(ComparisonFeaturesRow).where(
    ComparisonFeaturesRow.tenant == _TENANT,
    ComparisonFeaturesRow.event_id.in_(sa.select(_C.event_id).where(_mine(_C))),
)
_COMPARISONS = sa.delete(_C).where(_mine(_C)).returning(_C.created_at, _C.chosen, _C.rejected)
_RATINGS = sa.delete(_R).where(_mine(_R)).returning(_R.created_at, _R.item_key)
_OTHERS = [(table, sa.delete(table).where(_mine(table))) for table in (UserWeightsRow, OutboxRow, UserRow)]
_FORMER_STONE = sa.delete(TombstoneRow).where(_mine(TombstoneRow)).returning(TombstoneRow.forgotten_at)
_STONE = sa.insert(TombstoneRow)


def none(tenant: Any, column: Any, value: Any) -> Any:
    """That no row of a tenant has a value of the outer statement in a column, found in an index, row by row.

    ``NOT EXISTS`` says the same, but PostgreSQL makes a join of it, and where it has not counted a table's rows yet it
    may read the whole table for each.
    """
    table = column.parent.class_
    found = sa.select(sa.literal(1)).where(table.tenant == tenant, column == value).limit(1)
    return found.correlate(value.parent.class_).scalar_subquery().is_(None)


def _unjudged(table: Any) -> Any:
    """Deletes those of the items that no event of the tenant points to."""
    sides = (_C.chosen, _C.rejected, _R.item_key)
    unjudged = (none(_TENANT, side, table.item_key) for side in sides)
    return sa.delete(table).where(table.tenant == _TENANT, table.item_key.in_(_KEYS), *unjudged)


_ITEMS = [(table, _unjudged(table)) for table in (ItemFeaturesRow, ItemRow)]


def erase(connection: sa.Connection, tenant: str, user_id: str) -> dict[str, int]:
    """Deletes a user's rows, and the items that nobody else judged, for they are the user's text; leaves a tombstone.

    The caller's transaction must keep other writers of the tenant out.

    Returns:
        Rows deleted, by table.
    """
    given = {"of_tenant": tenant, "of_user": user_id}
    counts = {ComparisonFeaturesRow.__tablename__: connection.execute(_FEATURES, given).rowcount}
    moment, keys = datetime.now(UTC), set[bytes]()
    for judge, statement in ((_C, _COMPARISONS), (_R, _RATINGS)):
        events = connection.execute(statement, given).all()
        counts[judge.__tablename__] = len(events)
        # A clock ahead of ours may have dated an event later than now; it must not come back either.
        moment = max([moment, *(event.created_at for event in events)])
        keys.update(key for _, *items in events for key in items)
    counts |= {table.__tablename__: connection.execute(statement, given).rowcount for table, statement in _OTHERS}
    counts |= erase_unjudged(connection, tenant, keys)
    # Forgotten a second time, the user stays forgotten from as late on.
    moment = max([moment, *connection.scalars(_FORMER_STONE, given)])
    stone = {"tenant": tenant, "user_id": user_id, "event_id": uuid7(), "forgotten_at": moment}
    connection.execute(_STONE, stone)
    return counts


def erase_unjudged(connection: sa.Connection, tenant: str, keys: Collection[bytes]) -> dict[str, int]:
    """Deletes those of the items that nobody judges any more, with what was computed from them.

    The caller's transaction must keep other writers of the tenant out.

    Returns:
        Rows deleted, by table.
    """
    counts = {table.__tablename__: 0 for table, _ in _ITEMS}
    ordered = sorted(keys)
    for start in range(0, len(ordered), _KEYS_PER_STATEMENT):
        given = {"of_tenant": tenant, "keys": ordered[start : start + _KEYS_PER_STATEMENT]}
        for table, statement in _ITEMS:
            counts[table.__tablename__] += connection.execute(statement, given).rowcount
    return counts
