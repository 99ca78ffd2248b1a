"""Events in, weights out: every statement of one tenant; imports the tables and SQLAlchemy.

A :class:`Store` may be shared by threads: it holds no state but its tenant. Vectors go in and out as numpy arrays;
what they mean is the engine's business.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.dialects import postgresql, sqlite

from mrm_sdk.errors import ContentionError
from mrm_sdk.schemas import Item, identifier, uuid7
from mrm_sdk.storage.engine import Database
from mrm_sdk.storage.erasure import erase
from mrm_sdk.storage.records import Event, Outcome, StoredWeights, UserFeedback, conflict, stale
from mrm_sdk.storage.tables import (
    BundleRow,
    ComparisonFeaturesRow,
    ComparisonRow,
    ItemFeaturesRow,
    ItemRow,
    TombstoneRow,
    UserRow,
    UserWeightsRow,
)

_ATTEMPTS = 5
_KEYS_PER_QUERY = 5_000  # below the number of parameters that any of the databases takes
_T = TypeVar("_T")


class Store:
    """The tables of one tenant.

    Args:
        database: where they are.
        tenant: whose; part of every statement.
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self.database = database
        self.tenant = identifier("tenant", tenant)
        self._lock = int.from_bytes(hashlib.sha256(f"mrm_sdk {tenant}".encode()).digest()[:8], signed=True)

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
        if not events:
            return []
        return self._write(lambda connection: self._add(connection, events, features, base_rewards or {}))

    def _write(self, work: Callable[[sa.Connection], _T], *, alone: bool = False) -> _T:
        """Runs ``work`` in a writing transaction, again where another process changed the same rows in between.

        With ``alone``, no other writer of this tenant runs meanwhile: what is being forgotten cannot be judged again
        in the same moment. SQLite has one writer anyhow; on PostgreSQL an advisory lock keeps the others waiting.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self.database.transaction(write=True) as connection:
                    if self.database.dialect == "postgresql":
                        lock = sa.func.pg_advisory_xact_lock if alone else sa.func.pg_advisory_xact_lock_shared
                        connection.execute(sa.select(lock(self._lock)))
                    return work(connection)
            except ContentionError:
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    def _add(
        self,
        connection: sa.Connection,
        events: Sequence[Event],
        features: str | None,
        base_rewards: Mapping[bytes, NDArray[np.float32]],
    ) -> list[Outcome]:
        c, t = ComparisonRow, TombstoneRow
        query: Any = sa.select(c.event_id, c.content).where(c.tenant == self.tenant)
        rows = self._select(connection, query, c.event_id, {event.comparison.event_id for event in events})
        known: dict[str, bytes] = {row.event_id: row.content for row in rows}
        query = sa.select(t.user_id, t.forgotten_at).where(t.tenant == self.tenant)
        stones = self._select(connection, query, t.user_id, {event.comparison.user_id for event in events})
        forgotten: dict[str, datetime] = {row.user_id: row.forgotten_at for row in stones}

        outcomes: list[Outcome] = []
        new: list[Event] = []
        for event in events:
            comparison, content = event.comparison, event.content
            gone = forgotten.get(comparison.user_id)
            if comparison.event_id in known:
                same = known[comparison.event_id] == content
                outcomes.append(Outcome(False, None if same else conflict(comparison.event_id)))
            elif gone is not None and comparison.created_at <= gone:
                outcomes.append(Outcome(False, stale(gone)))
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
        # Rows are touched in a fixed order, so that two writers seldom wait for each other.
        users = self._insert_into(UserRow).on_conflict_do_update(
            index_elements=["tenant", "user_id"], set_={"feedback": UserRow.feedback + 1}
        )
        # A user starts at a random number: somebody who was forgotten and comes back never stands where weights that
        # were computed before could be taken for current ones.
        names = sorted({event.comparison.user_id for event in events})
        connection.execute(users, [{**tenant, "user_id": name, "feedback": 1 + secrets.randbits(52)} for name in names])
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
                for event in sorted(events, key=lambda event: event.comparison.event_id)
            ],
        )
        if features is not None:
            z = {event.comparison.event_id: event.z for event in events if event.z is not None}
            present = {key: base_rewards[key] for key in items if key in base_rewards}
            self._insert_features(connection, features, z, present)

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
            query: Any = sa.select(i.item_key).where(i.tenant == self.tenant)
            items = self._select(connection, query, i.item_key, base_rewards)
            query = sa.select(c.event_id).where(c.tenant == self.tenant)
            events = self._select(connection, query, c.event_id, z)
            self._insert_features(
                connection,
                features,
                {row.event_id: z[row.event_id] for row in events},
                {row.item_key: base_rewards[row.item_key] for row in items},
            )

        self._write(work)

    def base_rewards(self, features: str, keys: Collection[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """Stored base rewards of items, by key; unknown items are absent."""
        f = ItemFeaturesRow
        query = sa.select(f.item_key, f.base_rewards).where(f.tenant == self.tenant, f.features == features)
        with self.database.transaction() as connection:
            rows = self._select(connection, query, f.item_key, keys)
            return {row.item_key: np.frombuffer(row.base_rewards, np.float32) for row in rows}

    def items(self, keys: Collection[bytes]) -> dict[bytes, Item]:
        """Stored items, by key; unknown ones are absent."""
        i = ItemRow
        query = sa.select(i.item_key, i.prompt, i.response, i.embedding).where(i.tenant == self.tenant)
        with self.database.transaction() as connection:
            rows = self._select(connection, query, i.item_key, keys)
            return {row.item_key: Item(row.prompt, row.response, _embedding(row.embedding)) for row in rows}

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
            Whether they were stored; ``False`` also where the user's feedback is no longer what they have seen.
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
        # Only beside feedback that is still as it was: not for somebody who was forgotten, or has said more since.
        current = sa.exists().where(
            UserRow.tenant == self.tenant, UserRow.user_id == user_id, UserRow.feedback == weights.feedback
        )
        statement: Any
        if weights.revision == 1:
            row = {**key, **values}
            columns = [sa.literal(value, w.__table__.c[name].type) for name, value in row.items()]
            statement = self._insert_into(w).from_select(list(row), sa.select(*columns).where(current))
            statement = statement.on_conflict_do_nothing()
        else:
            statement = sa.update(w).filter_by(**key, revision=weights.revision - 1).where(current).values(**values)
        # What is returned was written; row counts mean different things to different drivers.
        statement = statement.returning(w.revision)
        return self._write(lambda connection: connection.execute(statement).first() is not None)

    def forget(self, user_id: str) -> dict[str, int]:
        """Deletes a user from every table in one transaction and leaves a tombstone.

        Items that nobody else judged go too: they are the user's text.

        Returns:
            Rows deleted, by table.
        """

        def work(connection: sa.Connection) -> dict[str, int]:
            c = ComparisonRow
            mine = sa.select(sa.func.max(c.created_at)).where(c.tenant == self.tenant, c.user_id == user_id)
            # A clock ahead of ours may have dated an event later than now; it must not come back either.
            moment = max(connection.scalar(mine) or datetime.min.replace(tzinfo=UTC), datetime.now(UTC))
            counts = erase(connection, self.tenant, user_id)
            stone = self._insert_into(TombstoneRow).values(
                tenant=self.tenant, user_id=user_id, event_id=uuid7(), forgotten_at=moment
            )
            connection.execute(
                stone.on_conflict_do_update(
                    index_elements=["tenant", "user_id"],
                    set_={"event_id": stone.excluded.event_id, "forgotten_at": stone.excluded.forgotten_at},
                )
            )
            return counts

        return self._write(work, alone=True)

    def remember_bundle(self, *, fingerprint: str, features: str, name: str) -> None:
        """Notes that this database is used with a bundle; where it is known already, nothing is written."""
        b = BundleRow
        known = sa.select(b.name).where(b.tenant == self.tenant, b.fingerprint == fingerprint)
        with self.database.transaction() as connection:
            if connection.execute(known).first() is not None:
                return
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

    @staticmethod
    def _select(connection: sa.Connection, query: Any, column: Any, values: Collection[Any]) -> Iterator[Any]:
        """Rows in which ``column`` is one of ``values``, of which there may be any number."""
        for part in batched(values, _KEYS_PER_QUERY):
            yield from connection.execute(query.where(column.in_(part)))

    def _insert_into(self, table: type) -> Any:
        """An INSERT that can say ON CONFLICT, which both databases spell alike but SQLAlchemy keeps apart."""
        return (postgresql if self.database.dialect == "postgresql" else sqlite).insert(table)


def batched(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Consecutive parts of at most ``size`` values."""
    rest = iter(values)
    while part := list(islice(rest, size)):
        yield part


def _embedding(data: bytes | None) -> NDArray[np.float32] | None:
    return None if data is None else np.frombuffer(data, np.float32)


def _to_bytes(array: NDArray[Any] | None) -> bytes | None:
    return None if array is None else array.tobytes()
