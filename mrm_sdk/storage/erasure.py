"""Deleting a user from every table; imports the tables and SQLAlchemy."""

from __future__ import annotations

import sqlalchemy as sa

from mrm_sdk.storage.tables import (
    ComparisonFeaturesRow,
    ComparisonRow,
    ItemFeaturesRow,
    ItemRow,
    OutboxRow,
    RatingRow,
    UserRow,
    UserWeightsRow,
)

_KEYS_PER_QUERY = 1_000


def erase(connection: sa.Connection, tenant: str, user_id: str) -> dict[str, int]:
    """Deletes a user's rows, and the items that nobody else judged, for they are the user's text.

    The caller's transaction must keep other writers of the tenant out.

    Returns:
        Rows deleted, by table.
    """
    c, f, r = ComparisonRow, ComparisonFeaturesRow, RatingRow
    mine = (c.tenant == tenant) & (c.user_id == user_id)
    judged = {key for row in connection.execute(sa.select(c.chosen, c.rejected).where(mine)) for key in row}
    judged |= set(connection.scalars(sa.select(r.item_key).filter_by(tenant=tenant, user_id=user_id)))
    keys = sorted(judged)
    events = sa.select(c.event_id).where(mine)
    statements = {
        f: sa.delete(f).where(f.tenant == tenant, f.event_id.in_(events)),
        c: sa.delete(c).where(mine),
    } | {
        table: sa.delete(table).filter_by(tenant=tenant, user_id=user_id)
        for table in (r, UserWeightsRow, OutboxRow, UserRow)
    }
    counts = {table.__tablename__: connection.execute(statement).rowcount for table, statement in statements.items()}
    counts |= {ItemFeaturesRow.__tablename__: 0, ItemRow.__tablename__: 0}
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        orphans = set(keys[start : start + _KEYS_PER_QUERY])
        for table, column in ((c, c.chosen), (c, c.rejected), (r, r.item_key)):
            orphans -= set(connection.scalars(sa.select(column).where(table.tenant == tenant, column.in_(orphans))))
        for items in (ItemFeaturesRow, ItemRow):
            statement = sa.delete(items).where(items.tenant == tenant, items.item_key.in_(orphans))
            counts[items.__tablename__] += connection.execute(statement).rowcount
    return counts
