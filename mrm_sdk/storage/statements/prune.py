"""DELETE: events older than a tenant keeps, in steps of bounded size."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from mrm_sdk.storage.database import Database
from mrm_sdk.storage.statements.forget import delete_unjudged_items, no_row_has
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

# Statements are built once: building one costs more than running it. No parameter has the name of a column.
_TENANT: Any = sa.bindparam("of_tenant")
_BEFORE: Any = sa.bindparam("before")
_EVENTS: Any = sa.bindparam("events", expanding=True)
_USERS: Any = sa.bindparam("users", expanding=True)
_JUDGED: dict[_Table, Sequence[Any]] = {
    ComparisonRow: (ComparisonRow.chosen, ComparisonRow.rejected),
    RatingRow: (RatingRow.item_key,),
}
_DEPENDENT = {ComparisonRow: (ComparisonFeaturesRow, OutboxRow), RatingRow: (OutboxRow,)}
_EMPTIED = (*_JUDGED, ComparisonFeaturesRow, OutboxRow, UserWeightsRow, UserRow, ItemFeaturesRow, ItemRow)
_PRUNED_BEFORE = sa.select(RetentionRow.pruned_before).where(RetentionRow.tenant == _TENANT)
_OLD_LIMIT, _NEW_LIMIT = sa.delete(RetentionRow).where(RetentionRow.tenant == _TENANT), sa.insert(RetentionRow)
_NEXT = {
    table: sa.select(table.event_id)
    .where(table.tenant == _TENANT, table.event_id > sa.bindparam("after"), table.created_at < _BEFORE)
    .order_by(table.event_id)
    .limit(sa.bindparam("size"))
    for table in _JUDGED
}
# Checks the time again: the event may have been forgotten since, and another one recorded with the same id.
_OLD = {
    table: sa.select(table.event_id, table.user_id, *items).where(
        table.tenant == _TENANT, table.event_id.in_(_EVENTS), table.created_at < _BEFORE
    )
    for table, items in _JUDGED.items()
}


def _of_events(table: Any) -> Any:
    return sa.delete(table).where(table.tenant == _TENANT, table.event_id.in_(_EVENTS))


_DELETE = {table: [(row, _of_events(row)) for row in (*rows, table)] for table, rows in _DEPENDENT.items()}
_NEXT_VERSION = (
    sa.update(UserRow)
    .where(UserRow.tenant == _TENANT, UserRow.user_id.in_(_USERS))
    .values(feedback_version=UserRow.feedback_version + 1)
)
_WEIGHTS = sa.delete(UserWeightsRow).where(UserWeightsRow.tenant == _TENANT, UserWeightsRow.user_id.in_(_USERS))
_USERS_WITHOUT_FEEDBACK = sa.delete(UserRow).where(
    UserRow.tenant == _TENANT,
    UserRow.user_id.in_(_USERS),
    *(no_row_has(_TENANT, table.user_id, UserRow.user_id) for table in _JUDGED),
)


class WriteTransaction(Protocol):
    """Runs work in a writing transaction; ``alone`` keeps other writers of the tenant out meanwhile."""

    def __call__(self, work: Callable[[sa.Connection], _T], *, alone: bool = False) -> _T:
        """See :meth:`mrm_sdk.storage.database.Database.run`."""
        ...


def pruned_before(connection: sa.Connection, tenant: str) -> datetime | None:
    """The time before which a tenant keeps no events; ``None`` if it was never pruned."""
    moment: datetime | None = connection.scalar(_PRUNED_BEFORE, {"of_tenant": tenant})
    return moment


def prune(
    database: Database, write: WriteTransaction, tenant: str, before: datetime
) -> tuple[datetime, dict[str, int]]:
    """Deletes a tenant's events from before a time, with what was derived from them and what they alone referred to.

    First the time becomes the tenant's limit, which never moves back: older events are refused from then on. Then the
    stored ones are deleted in steps, each a transaction; if a step fails, those before it stay done.

    Args:
        database: where to look for old events, without a write lock.
        write: runs the tenant's writing transactions.
        tenant: whose events.
        before: of ``created_at``.

    Returns:
        The limit as it is now, and rows deleted, by table.
    """
    before = write(lambda connection: _set_limit(connection, tenant, before), alone=True)
    counts = Counter({table.__tablename__: 0 for table in _EMPTIED})
    for table in _JUDGED:
        for event_ids in _old_event_ids(database, table, tenant, before):
            start = time.monotonic()
            counts.update(
                write(
                    partial(_delete_events, table=table, tenant=tenant, event_ids=event_ids, before=before), alone=True
                )
            )
            if database.dialect == "sqlite":
                # Processes that wait for SQLite's lock poll it now and then: it must be free in between.
                time.sleep((time.monotonic() - start) / 2)
    return before, dict(counts)


def _old_event_ids(database: Database, table: _Table, tenant: str, before: datetime) -> Iterator[Sequence[str]]:
    """Ids of old events, one step's worth at a time, in one pass over the table."""
    parameters = {"of_tenant": tenant, "before": before, "size": EVENTS_PER_STEP, "after": ""}
    while events := database.read(lambda connection: connection.scalars(_NEXT[table], parameters).all()):
        yield events
        parameters["after"] = events[-1]


def _set_limit(connection: sa.Connection, tenant: str, before: datetime) -> datetime:
    before = max(pruned_before(connection, tenant) or before, before)
    connection.execute(_OLD_LIMIT, {"of_tenant": tenant})
    connection.execute(_NEW_LIMIT, {"tenant": tenant, "pruned_before": before})
    return before


def _delete_events(
    connection: sa.Connection, *, table: _Table, tenant: str, event_ids: Sequence[str], before: datetime
) -> dict[str, int]:
    """Deletes the events that are still old, and what depends on them; returns rows deleted, by table."""
    parameters: dict[str, Any] = {"of_tenant": tenant, "events": event_ids, "before": before}
    old = connection.execute(_OLD[table], parameters).all()
    parameters |= {"events": [row.event_id for row in old], "users": sorted({row.user_id for row in old})}
    # A process that adapts one of these users right now finds another feedback version, and reads the feedback again.
    connection.execute(_NEXT_VERSION, parameters)
    statements = [(UserWeightsRow, _WEIGHTS), *_DELETE[table], (UserRow, _USERS_WITHOUT_FEEDBACK)]
    counts = {row.__tablename__: connection.execute(statement, parameters).rowcount for row, statement in statements}
    return counts | delete_unjudged_items(connection, tenant, {key for _, _, *items in old for key in items})
