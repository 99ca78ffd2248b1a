"""Deleting events that are older than a tenant keeps them, step by step; imports the tables and SQLAlchemy."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from mrm_sdk.storage.database import Database
from mrm_sdk.storage.statements.forget import erase_unjudged, none
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

EVENTS_PER_STEP = 1_000
_T = TypeVar("_T")
_Table = type[ComparisonRow] | type[RatingRow]

# Statements are built once: building one costs more than running it. No parameter bears the name of a column.
_TENANT: Any = sa.bindparam("of_tenant")
_BEFORE: Any = sa.bindparam("before")
_EVENTS: Any = sa.bindparam("events", expanding=True)
_USERS: Any = sa.bindparam("users", expanding=True)
_JUDGED: dict[_Table, Sequence[Any]] = {
    ComparisonRow: (ComparisonRow.chosen, ComparisonRow.rejected),
    RatingRow: (RatingRow.item_key,),
}
_HANGING = {ComparisonRow: (ComparisonFeaturesRow, OutboxRow), RatingRow: (OutboxRow,)}
_EMPTIED = (*_JUDGED, ComparisonFeaturesRow, OutboxRow, UserWeightsRow, UserRow, ItemFeaturesRow, ItemRow)
_LINE = sa.select(RetentionRow.pruned_before).where(RetentionRow.tenant == _TENANT)
_FORMER_LINE, _NEW_LINE = sa.delete(RetentionRow).where(RetentionRow.tenant == _TENANT), sa.insert(RetentionRow)
_NEXT = {
    table: sa.select(table.event_id)
    .where(table.tenant == _TENANT, table.event_id > sa.bindparam("after"), table.created_at < _BEFORE)
    .order_by(table.event_id)
    .limit(sa.bindparam("size"))
    for table in _JUDGED
}
# The moment once more: an event may have been forgotten since, and another one recorded by the same id.
_OLD = {
    table: sa.select(table.event_id, table.user_id, *items).where(
        table.tenant == _TENANT, table.event_id.in_(_EVENTS), table.created_at < _BEFORE
    )
    for table, items in _JUDGED.items()
}


def _of_events(table: Any) -> Any:
    return sa.delete(table).where(table.tenant == _TENANT, table.event_id.in_(_EVENTS))


_DELETE = {table: [(each, _of_events(each)) for each in (*hanging, table)] for table, hanging in _HANGING.items()}
_MOVE = (
    sa.update(UserRow)
    .where(UserRow.tenant == _TENANT, UserRow.user_id.in_(_USERS))
    .values(feedback=UserRow.feedback + 1)
)
_WEIGHTS = sa.delete(UserWeightsRow).where(UserWeightsRow.tenant == _TENANT, UserWeightsRow.user_id.in_(_USERS))
_SILENT = sa.delete(UserRow).where(
    UserRow.tenant == _TENANT,
    UserRow.user_id.in_(_USERS),
    *(none(_TENANT, table.user_id, UserRow.user_id) for table in _JUDGED),
)


class Write(Protocol):
    """Runs work in a writing transaction; with ``alone``, no other writer of the tenant runs meanwhile."""

    def __call__(self, work: Callable[[sa.Connection], _T], *, alone: bool = False) -> _T:
        """See :meth:`mrm_sdk.storage.database.Database.run`."""
        ...


def line(connection: sa.Connection, tenant: str) -> datetime | None:
    """The moment before which a tenant keeps nothing; ``None`` where it was never pruned."""
    moment: datetime | None = connection.scalar(_LINE, {"of_tenant": tenant})
    return moment


def prune(database: Database, write: Write, tenant: str, before: datetime) -> tuple[datetime, dict[str, int]]:
    """Deletes a tenant's events from before a moment, what was derived from them, and what belongs to nobody then.

    First the moment becomes the tenant's line, which never moves back, and from behind which nothing comes in any more.
    Then what is there goes in steps, each a transaction; where one fails, those before it stay done.

    Args:
        database: to look in, without keeping anybody waiting.
        write: the tenant's writing transactions.
        tenant: whose events.
        before: of ``created_at``.

    Returns:
        The line as it now stands, and rows deleted, by table.
    """
    before = write(lambda connection: _draw(connection, tenant, before), alone=True)
    counts = Counter({table.__tablename__: 0 for table in _EMPTIED})
    for table in _JUDGED:
        for events in _old(database, table, tenant, before):
            start = time.monotonic()
            counts.update(write(partial(_step, table=table, tenant=tenant, events=events, before=before), alone=True))
            if database.dialect == "sqlite":
                # Whoever waits for SQLite's lock is not called, but looks now and then: it must be free meanwhile.
                time.sleep((time.monotonic() - start) / 2)
    return before, dict(counts)


def _old(database: Database, table: _Table, tenant: str, before: datetime) -> Iterator[Sequence[str]]:
    """Ids of old events, a step's at a time, in one pass over the table."""
    given = {"of_tenant": tenant, "before": before, "size": EVENTS_PER_STEP, "after": ""}
    while events := database.read(lambda connection: connection.scalars(_NEXT[table], given).all()):
        yield events
        given["after"] = events[-1]


def _draw(connection: sa.Connection, tenant: str, before: datetime) -> datetime:
    before = max(line(connection, tenant) or before, before)
    connection.execute(_FORMER_LINE, {"of_tenant": tenant})
    connection.execute(_NEW_LINE, {"tenant": tenant, "pruned_before": before})
    return before


def _step(
    connection: sa.Connection, *, table: _Table, tenant: str, events: Sequence[str], before: datetime
) -> dict[str, int]:
    """Deletes those of the events that are old, and what hangs on them; returns rows deleted, by table."""
    given: dict[str, Any] = {"of_tenant": tenant, "events": events, "before": before}
    old = connection.execute(_OLD[table], given).all()
    given |= {"events": [row.event_id for row in old], "users": sorted({row.user_id for row in old})}
    # Whoever is adapting a user of these at this moment finds the counter moved, and reads the feedback again.
    connection.execute(_MOVE, given)
    statements = [(UserWeightsRow, _WEIGHTS), *_DELETE[table], (UserRow, _SILENT)]
    counts = {each.__tablename__: connection.execute(statement, given).rowcount for each, statement in statements}
    return counts | erase_unjudged(connection, tenant, {key for _, _, *items in old for key in items})
