"""Events in, weights out: every statement of one tenant; imports the tables and SQLAlchemy.

A :class:`Store` may be shared by threads: it holds no state but its tenant. Vectors go in and out as numpy arrays;
what they mean is the engine's business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql, sqlite

from mrm_sdk.errors import ConflictError, DatabaseError, UserForgottenError
from mrm_sdk.schemas import Item, uuid7
from mrm_sdk.storage.engine import Database
from mrm_sdk.storage.records import Event, Outcome, StoredWeights, UserFeedback
from mrm_sdk.storage.tables import (
    BundleRow,
    ComparisonFeaturesRow,
    ComparisonRow,
    ItemFeaturesRow,
    ItemRow,
    OutboxRow,
    TombstoneRow,
    UserRow,
    UserWeightsRow,
)

_RETRIES = 5
_T = TypeVar("_T")


class Store:
    """The tables of one tenant.

    Args:
        database: where they are.
        tenant: whose; part of every statement.
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self.database = database
        self.tenant = tenant

    def add(
        self,
        events: Sequence[Event],
        *,
        features: str | None = None,
        base_rewards: Mapping[bytes, NDArray[np.float32]] | None = None,
    ) -> list[Outcome]:
        """Stores events in one transaction; when this returns, the accepted ones are durable.

        Args:
            events: in any order; equal event ids may come again.
            features: hash under which ``z`` and ``base_rewards`` are stored; ``None`` stores neither.
            base_rewards: of the events' items, by item key.

        Returns:
            One outcome per event, in order.
        """
        return self._write(lambda connection: self._add(connection, events, features, base_rewards or {}))

    def _write(self, work: Callable[[sa.Connection], _T]) -> _T:
        """Runs ``work`` in a writing transaction, again where another process changed the same rows in between."""
        for _ in range(_RETRIES):
            try:
                with self.database.transaction(write=True) as connection:
                    return work(connection)
            except exc.IntegrityError:
                continue
        raise DatabaseError("Nothing was stored: other processes keep changing the same rows. Try again.")

    def _add(
        self,
        connection: sa.Connection,
        events: Sequence[Event],
        features: str | None,
        base_rewards: Mapping[bytes, NDArray[np.float32]],
    ) -> list[Outcome]:
        c, t = ComparisonRow, TombstoneRow
        ids = {event.comparison.event_id for event in events}
        rows = connection.execute(sa.select(c.event_id, c.content).where(c.tenant == self.tenant, c.event_id.in_(ids)))
        known: dict[str, bytes] = {row.event_id: row.content for row in rows}
        users = {event.comparison.user_id for event in events}
        stones = connection.execute(
            sa.select(t.user_id, t.forgotten_at).where(t.tenant == self.tenant, t.user_id.in_(users))
        )
        forgotten: dict[str, datetime] = {row.user_id: row.forgotten_at for row in stones}

        outcomes: list[Outcome] = []
        new: list[Event] = []
        for event in events:
            comparison, content = event.comparison, event.content
            gone = forgotten.get(comparison.user_id)
            if comparison.event_id in known:
                same = known[comparison.event_id] == content
                outcomes.append(Outcome(False, None if same else _conflict(comparison.event_id)))
            elif gone is not None and comparison.created_at <= gone:
                outcomes.append(Outcome(False, _stale(gone)))
            else:
                known[comparison.event_id] = content
                new.append(event)
                outcomes.append(Outcome(True))
        if new:
            self._insert(connection, new, features, base_rewards)
        return outcomes

    def _insert(
        self,
        connection: sa.Connection,
        events: Sequence[Event],
        features: str | None,
        base_rewards: Mapping[bytes, NDArray[np.float32]],
    ) -> None:
        tenant = {"tenant": self.tenant}
        # Rows are touched in a fixed order, so that two writers cannot wait for each other.
        counts = sorted(Counter(event.comparison.user_id for event in events).items())
        users = self._insert_into(UserRow)
        users = users.on_conflict_do_update(
            index_elements=["tenant", "user_id"], set_={"feedback": UserRow.feedback + users.excluded.feedback}
        )
        connection.execute(users, [{**tenant, "user_id": user, "feedback": n} for user, n in counts])
        items = {item.key: item for event in events for item in (event.chosen, event.rejected)}
        connection.execute(
            self._insert_into(ItemRow).on_conflict_do_nothing(),
            [
                {
                    **tenant,
                    "item_key": key,
                    "prompt": items[key].prompt,
                    "response": items[key].text,
                    "embedding": _to_bytes(items[key].embedding),
                }
                for key in sorted(items)
            ],
        )
        connection.execute(
            sa.insert(ComparisonRow),
            [
                {
                    **tenant,
                    "event_id": event.comparison.event_id,
                    "user_id": event.comparison.user_id,
                    "chosen": event.chosen.key,
                    "rejected": event.rejected.key,
                    "tie": event.comparison.tie,
                    "strength": event.comparison.strength,
                    "created_at": event.comparison.created_at,
                    "content": event.content,
                }
                for event in events
            ],
        )
        if features is not None:
            z = {event.comparison.event_id: event.z for event in events if event.z is not None}
            self._insert_features(
                connection, features, z, {key: base_rewards[key] for key in items if key in base_rewards}
            )

    def _insert_features(
        self,
        connection: sa.Connection,
        features: str,
        z: Mapping[str, NDArray[np.float32]],
        base_rewards: Mapping[bytes, NDArray[np.float32]],
    ) -> None:
        common = {"tenant": self.tenant, "features": features}
        if base_rewards:
            connection.execute(
                self._insert_into(ItemFeaturesRow).on_conflict_do_nothing(),
                [{**common, "item_key": k, "base_rewards": _to_bytes(base_rewards[k])} for k in sorted(base_rewards)],
            )
        if z:
            connection.execute(
                self._insert_into(ComparisonFeaturesRow).on_conflict_do_nothing(),
                [{**common, "event_id": event_id, "z": _to_bytes(value)} for event_id, value in sorted(z.items())],
            )

    def add_features(
        self,
        features: str,
        z: Mapping[str, NDArray[np.float32]],
        base_rewards: Mapping[bytes, NDArray[np.float32]],
    ) -> None:
        """Stores features computed after their events; what is there already stays, what is gone stays gone."""
        c, i = ComparisonRow, ItemRow

        def work(connection: sa.Connection) -> None:
            events = connection.scalars(sa.select(c.event_id).where(c.tenant == self.tenant, c.event_id.in_(list(z))))
            items = connection.scalars(
                sa.select(i.item_key).where(i.tenant == self.tenant, i.item_key.in_(list(base_rewards)))
            )
            self._insert_features(
                connection, features, {event: z[event] for event in events}, {key: base_rewards[key] for key in items}
            )

        self._write(work)

    def base_rewards(self, features: str, keys: Iterable[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """Stored base rewards of items, by key; unknown items are absent."""
        f = ItemFeaturesRow
        query = sa.select(f.item_key, f.base_rewards).where(
            f.tenant == self.tenant, f.features == features, f.item_key.in_(list(keys))
        )
        with self.database.transaction() as connection:
            return {key: np.frombuffer(value, np.float32) for key, value in connection.execute(query)}

    def items(self, keys: Iterable[bytes]) -> dict[bytes, Item]:
        """Stored items, by key; unknown ones are absent."""
        i = ItemRow
        query = sa.select(i.item_key, i.prompt, i.response, i.embedding).where(
            i.tenant == self.tenant, i.item_key.in_(list(keys))
        )
        with self.database.transaction() as connection:
            return {
                row.item_key: Item(
                    row.prompt,
                    row.response,
                    None if row.embedding is None else np.frombuffer(row.embedding, np.float32),
                )
                for row in connection.execute(query)
            }

    def weights(self, user_id: str, fingerprint: str) -> tuple[int, StoredWeights | None]:
        """How much feedback a user has given (0: unknown user), and the stored weights, in one statement."""
        u, w = UserRow, UserWeightsRow
        query = (
            sa.select(u.feedback, w.weights, w.covariance, w.comparisons, w.feedback.label("seen"), w.revision)
            .join_from(
                u,
                w,
                (w.tenant == u.tenant) & (w.user_id == u.user_id) & (w.fingerprint == fingerprint),
                isouter=True,
            )
            .where(u.tenant == self.tenant, u.user_id == user_id)
        )
        with self.database.transaction() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return 0, None
        if row.weights is None:
            return row.feedback, None
        weights = np.frombuffer(row.weights, np.float64)
        covariance = None
        if row.covariance is not None:
            covariance = np.frombuffer(row.covariance, np.float64).reshape(len(weights), len(weights))
        return row.feedback, StoredWeights(weights, covariance, row.comparisons, row.seen, row.revision)

    def feedback(self, user_id: str, features: str) -> UserFeedback:
        """All comparisons of a user, with ``z`` under ``features`` where it is stored."""
        u, c, f = UserRow, ComparisonRow, ComparisonFeaturesRow
        query = (
            sa.select(c.event_id, c.chosen, c.rejected, c.strength, c.tie, f.z)
            .join_from(
                c, f, (f.tenant == c.tenant) & (f.event_id == c.event_id) & (f.features == features), isouter=True
            )
            .where(c.tenant == self.tenant, c.user_id == user_id)
            .order_by(c.event_id)
        )
        with self.database.transaction() as connection:
            # Read first: events that arrive in between make the weights look older than they are, never newer.
            count = connection.scalar(sa.select(u.feedback).where(u.tenant == self.tenant, u.user_id == user_id))
            rows = connection.execute(query).all()
        return UserFeedback(
            feedback=count or 0,
            event_ids=[row.event_id for row in rows],
            items=[(row.chosen, row.rejected) for row in rows],
            z=[None if row.z is None else np.frombuffer(row.z, np.float32) for row in rows],
            strength=[row.strength for row in rows],
            tie=[row.tie for row in rows],
        )

    def save_weights(self, user_id: str, fingerprint: str, weights: StoredWeights) -> bool:
        """Stores weights if nobody else did since ``weights.revision - 1`` was read (compare-and-set).

        Returns:
            Whether they were stored; ``False`` also where the user was forgotten in between.
        """
        w = UserWeightsRow
        values: dict[str, Any] = {
            "weights": _to_bytes(weights.weights),
            "covariance": _to_bytes(weights.covariance),
            "comparisons": weights.comparisons,
            "feedback": weights.feedback,
            "revision": weights.revision,
        }
        key = {"tenant": self.tenant, "user_id": user_id, "fingerprint": fingerprint}
        statement: Any
        if weights.revision == 1:
            statement = self._insert_into(w).values(**key, **values).on_conflict_do_nothing()
        else:
            statement = sa.update(w).filter_by(**key, revision=weights.revision - 1).values(**values)
        try:
            with self.database.transaction(write=True) as connection:
                return connection.execute(statement).rowcount == 1
        except exc.IntegrityError:
            return False

    def forget(self, user_id: str) -> dict[str, int]:
        """Deletes a user from every table in one transaction and leaves a tombstone.

        Items that nobody else judged go too: they are the user's text.

        Returns:
            Rows deleted, by table.
        """
        c, i = ComparisonRow, ItemRow
        mine = (c.tenant == self.tenant) & (c.user_id == user_id)
        with self.database.transaction(write=True) as connection:
            if self.database.dialect == "postgresql":
                # Nobody may add an event of this user until this has committed.
                connection.execute(
                    sa.select(UserRow.feedback).filter_by(tenant=self.tenant, user_id=user_id).with_for_update()
                )
            keys = {key for row in connection.execute(sa.select(c.chosen, c.rejected).where(mine)) for key in row}
            events = sa.select(c.event_id).where(mine)
            f = ComparisonFeaturesRow
            rows = {
                f.__tablename__: sa.delete(f).where(f.tenant == self.tenant, f.event_id.in_(events)),
                c.__tablename__: sa.delete(c).where(mine),
            }
            for table in (UserWeightsRow, OutboxRow, UserRow):
                rows[table.__tablename__] = sa.delete(table).filter_by(tenant=self.tenant, user_id=user_id)
            counts = {name: connection.execute(statement).rowcount for name, statement in rows.items()}
            counts |= dict.fromkeys((ItemFeaturesRow.__tablename__, i.__tablename__), 0)
            for start in range(0, len(keys), 1000):
                self._delete_orphans(connection, sorted(keys)[start : start + 1000], counts)
            stone = self._insert_into(TombstoneRow).values(
                tenant=self.tenant, user_id=user_id, event_id=uuid7(), forgotten_at=datetime.now(UTC)
            )
            connection.execute(
                stone.on_conflict_do_update(
                    index_elements=["tenant", "user_id"],
                    set_={"event_id": stone.excluded.event_id, "forgotten_at": stone.excluded.forgotten_at},
                )
            )
        return counts

    def _delete_orphans(self, connection: sa.Connection, keys: list[bytes], counts: dict[str, int]) -> None:
        c = ComparisonRow
        used = set[bytes]()
        for column in (c.chosen, c.rejected):
            used |= set(connection.scalars(sa.select(column).where(c.tenant == self.tenant, column.in_(keys))))
        orphans = [key for key in keys if key not in used]
        for table in (ItemFeaturesRow, ItemRow):
            statement = sa.delete(table).where(table.tenant == self.tenant, table.item_key.in_(orphans))
            counts[table.__tablename__] += connection.execute(statement).rowcount

    def remember_bundle(self, *, fingerprint: str, features: str, name: str) -> None:
        """Notes that this database is used with a bundle."""
        with self.database.transaction(write=True) as connection:
            connection.execute(
                self._insert_into(BundleRow)
                .values(
                    tenant=self.tenant,
                    fingerprint=fingerprint,
                    features=features,
                    name=name,
                    first_used_at=datetime.now(UTC),
                )
                .on_conflict_do_nothing()
            )

    def _insert_into(self, table: type) -> Any:
        """An INSERT that can say ON CONFLICT, which both databases spell alike but SQLAlchemy keeps apart."""
        return (postgresql if self.database.dialect == "postgresql" else sqlite).insert(table)


def _to_bytes(array: NDArray[Any] | None) -> bytes | None:
    return None if array is None else array.tobytes()


def _conflict(event_id: str) -> ConflictError:
    return ConflictError(
        f"Event {event_id!r} was recorded before with other content. Events never change: "
        "record a new one, with a new event_id."
    )


def _stale(forgotten_at: datetime) -> UserForgottenError:
    return UserForgottenError(
        f"The user was forgotten at {forgotten_at.isoformat()}, after this event; it stays deleted. "
        "New feedback carries a later created_at."
    )
