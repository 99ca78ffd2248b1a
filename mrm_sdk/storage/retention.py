"""Deleting events that are older than a tenant keeps them; imports the tables and SQLAlchemy."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mrm_sdk.storage.insertion import insert_into
from mrm_sdk.storage.tables import (
    ComparisonFeaturesRow,
    ComparisonRow,
    ItemFeaturesRow,
    ItemRow,
    OutboxRow,
    RatingRow,
    RetentionRow,
    UserRow,
    UserWeightsRow,
)


def line(connection: sa.Connection, tenant: str) -> datetime | None:
    """The moment before which a tenant keeps nothing; ``None`` where it was never pruned."""
    moment: datetime | None = connection.scalar(sa.select(RetentionRow.pruned_before).filter_by(tenant=tenant))
    return moment


def prune(connection: sa.Connection, tenant: str, before: datetime) -> tuple[datetime, dict[str, int]]:
    """Deletes a tenant's events from before a moment, what was derived from them, and what belongs to nobody then.

    The moment becomes the tenant's line, which never moves back. The caller's transaction must keep other writers
    of the tenant out.

    Returns:
        The line as it now stands, and rows deleted, by table.
    """
    before = max(line(connection, tenant) or before, before)
    mark = insert_into(connection.dialect.name, RetentionRow).values(tenant=tenant, pruned_before=before)
    connection.execute(
        mark.on_conflict_do_update(index_elements=["tenant"], set_={"pruned_before": mark.excluded.pruned_before})
    )

    c, r, u, w, i = ComparisonRow, RatingRow, UserRow, UserWeightsRow, ItemRow

    def old(column: str) -> Any:
        parts = (sa.select(getattr(t, column)).where(t.tenant == tenant, t.created_at < before) for t in (c, r))
        return sa.union(*parts)

    # Whoever is adapting a user of these at this moment finds the counter moved, and reads the feedback again.
    connection.execute(
        sa.update(u).where(u.tenant == tenant, u.user_id.in_(old("user_id"))).values(feedback=u.feedback + 1)
    )

    def judged(item: Any) -> Any:
        compared = (sa.exists().where(c.tenant == tenant, side == item) for side in (c.chosen, c.rejected))
        return sa.or_(*compared, sa.exists().where(r.tenant == tenant, r.item_key == item))

    known = sa.or_(*(sa.exists().where(t.tenant == tenant, t.user_id == u.user_id) for t in (c, r, w)))
    f, o, b = ComparisonFeaturesRow, OutboxRow, ItemFeaturesRow
    statements: list[tuple[Any, Any]] = [  # what points to other rows goes before them
        (w, w.user_id.in_(old("user_id"))),
        (f, f.event_id.in_(old("event_id"))),
        (o, o.event_id.in_(old("event_id"))),
        (c, c.created_at < before),
        (r, r.created_at < before),
        (b, ~judged(b.item_key)),
        (i, ~judged(i.item_key)),
        (u, ~known),
    ]
    return before, {
        table.__tablename__: connection.execute(sa.delete(table).where(table.tenant == tenant, condition)).rowcount
        for table, condition in statements
    }
