"""Events in, weights out: every statement of one tenant; imports the tables and SQLAlchemy.

A :class:`Store` may be shared by threads: it holds no state but its tenant. Vectors go in and out as numpy arrays;
what they mean is the engine's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from mrm_sdk.errors import ConfigurationError
from mrm_sdk.schemas import Item, identifier, uuid7
from mrm_sdk.storage.engine import Database
from mrm_sdk.storage.erasure import erase
from mrm_sdk.storage.export import export
from mrm_sdk.storage.insertion import insert_events, insert_features, insert_features_of, insert_into, to_bytes
from mrm_sdk.storage.records import (
    AnyEvent,
    Outcome,
    StoredRating,
    StoredWeights,
    UserFeedback,
    conflict,
    expired,
    stale,
)
from mrm_sdk.storage.retention import line, prune
from mrm_sdk.storage.tables import (
    BundleRow,
    ComparisonFeaturesRow,
    ComparisonRow,
    ItemFeaturesRow,
    ItemRow,
    RatingRow,
    TombstoneRow,
    UserRow,
    UserWeightsRow,
)

_KEYS_PER_QUERY = 5_000  # below the number of parameters that any of the databases takes
_T = TypeVar("_T")


class Store:
    """The tables of one tenant.

    Args:
        database: where they are.
        tenant: whose; part of every statement.
        store_text: whether prompts, responses and embeddings are kept, or only hashes and what was computed from them.
    """

    def __init__(self, database: Database, tenant: str, *, store_text: bool = True) -> None:
        self.database, self._store_text = database, store_text
        self.tenant = identifier("tenant", tenant)
        self._lock = int.from_bytes(hashlib.sha256(f"mrm_sdk {tenant}".encode()).digest()[:8], signed=True)

    def add(
        self,
        events: Sequence[AnyEvent],
        *,
        features: str | None = None,
        base_rewards: Mapping[bytes, NDArray[np.float32]] | None = None,
    ) -> list[Outcome]:
        """Stores events in one transaction; when this returns, the accepted ones are durable.

        Args:
            events: in any order; equal event ids may come again.
            features: hash under which ``z`` and ``base_rewards`` are stored; ``None`` stores neither. A duplicate
                is given those that it lacks: so feedback whose text was not kept gets features of another bundle.
            base_rewards: of the events' items, by item key.

        Returns:
            One outcome per event, in order.

        Raises:
            ConfigurationError: text is not kept, and no features are given in its place.
        """
        if not events:
            return []
        if features is None and not self._store_text:
            raise ConfigurationError(
                "With store_text=False feedback needs a bundle when it is recorded, for nothing could be computed from "
                "it later. Name one (mrm import --bundle BUNDLE, or a Client), or keep texts: store_text=True."
            )
        return self._write(lambda connection: self._add(connection, events, features, base_rewards or {}))

    def _write(self, work: Callable[[sa.Connection], _T], *, alone: bool = False) -> _T:
        """Runs ``work`` in a writing transaction, as :meth:`Database.run` does.

        With ``alone``, no other writer of this tenant runs meanwhile: what is being forgotten cannot be judged again
        in the same moment. SQLite has one writer anyhow; on PostgreSQL an advisory lock keeps the others waiting.
        """

        def guarded(connection: sa.Connection) -> _T:
            if self.database.dialect == "postgresql":
                lock = sa.func.pg_advisory_xact_lock if alone else sa.func.pg_advisory_xact_lock_shared
                connection.execute(sa.select(lock(self._lock)))
            return work(connection)

        return self.database.run(guarded, write=True)

    def _add(
        self,
        connection: sa.Connection,
        events: Sequence[AnyEvent],
        features: str | None,
        base_rewards: Mapping[bytes, NDArray[np.float32]],
    ) -> list[Outcome]:
        known = self._contents(connection, {event_id for event in events for event_id in event.contents})
        t = TombstoneRow
        query: Any = sa.select(t.user_id, t.forgotten_at).where(t.tenant == self.tenant)
        stones = self._select(connection, query, t.user_id, {event.source.user_id for event in events})
        forgotten: dict[str, datetime] = {row.user_id: row.forgotten_at for row in stones}
        pruned_before = line(connection, self.tenant)

        outcomes: list[Outcome] = []
        new: list[AnyEvent] = []
        again: list[AnyEvent] = []
        for event in events:
            source = event.source
            gone = forgotten.get(source.user_id)
            whole = {event_id: content for event_id, content in event.contents.items() if content is not None}
            found = {event_id: known[event_id] for event_id in event.contents if event_id in known}
            if found:
                outcomes.append(Outcome(False, None if found == whole else conflict(source.event_id)))
                if found == whole:
                    again.append(event)
            elif pruned_before is not None and source.created_at < pruned_before:
                outcomes.append(Outcome(False, expired(pruned_before)))
            elif gone is not None and source.created_at <= gone:
                outcomes.append(Outcome(False, stale(gone)))
            else:
                known |= whole
                new.append(event)
                outcomes.append(Outcome(True))
        if new:
            insert_events(connection, self.tenant, new, store_text=self._store_text)
        if features is not None:
            insert_features_of(connection, self.tenant, new + again, features, base_rewards)
        return outcomes

    def _contents(self, connection: sa.Connection, event_ids: Collection[str]) -> dict[str, bytes]:
        """Content of the stored events among ``event_ids``; a comparison and a rating never share an id."""
        known: dict[str, bytes] = {}
        for table in (ComparisonRow, RatingRow):
            query = sa.select(table.event_id, table.content).where(table.tenant == self.tenant)
            known |= {row.event_id: row.content for row in self._select(connection, query, table.event_id, event_ids)}
        return known

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
            insert_features(
                connection,
                self.tenant,
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
            return {row.item_key: Item(row.prompt, row.response, _vector(row.embedding)) for row in rows}

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
        """All feedback of a user, with ``z`` and base rewards under ``features`` where they are stored."""
        u, c, f, r, i = UserRow, ComparisonRow, ComparisonFeaturesRow, RatingRow, ItemFeaturesRow
        query = (
            sa.select(c.event_id, c.chosen, c.rejected, c.strength, c.tie, c.created_at, f.z)
            .join_from(
                c, f, (f.tenant == c.tenant) & (f.event_id == c.event_id) & (f.features == features), isouter=True
            )
            .where(c.tenant == self.tenant, c.user_id == user_id)
            .order_by(c.event_id)
        )
        rated = (
            sa.select(r.event_id, r.item_key, r.prompt_key, r.value, r.strength, r.created_at, i.base_rewards)
            .join_from(
                r, i, (i.tenant == r.tenant) & (i.item_key == r.item_key) & (i.features == features), isouter=True
            )
            .where(r.tenant == self.tenant, r.user_id == user_id)
        )
        with self.database.transaction() as connection:
            # Read first: events that arrive in between make the weights look older than they are, never newer.
            count = connection.scalar(sa.select(u.feedback).where(u.tenant == self.tenant, u.user_id == user_id))
            rows = connection.execute(query).all()
            ratings = [StoredRating(*row[:-1], _vector(row.base_rewards)) for row in connection.execute(rated)]
        # Sorted here: databases order text each in a way of their own.
        newest = {rating.item: rating for rating in sorted(ratings, key=lambda r: (r.created_at, r.event_id))}
        return UserFeedback(
            feedback=count or 0,
            event_ids=[row.event_id for row in rows],
            items=[(row.chosen, row.rejected) for row in rows],
            z=[_vector(row.z) for row in rows],
            strength=[row.strength for row in rows],
            tie=[row.tie for row in rows],
            created_at=[row.created_at for row in rows],
            ratings=[newest[item] for item in sorted(newest)],
        )

    def save_weights(self, user_id: str, fingerprint: str, weights: StoredWeights) -> bool:
        """Stores weights if nobody else did since ``weights.revision - 1`` was read (compare-and-set).

        Returns:
            Whether they were stored; ``False`` also where the user's feedback is no longer what they have seen.
        """
        w = UserWeightsRow
        values: dict[str, Any] = {
            "weights": to_bytes(weights.weights),
            "covariance": to_bytes(weights.covariance),
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
            statement = insert_into(self.database.dialect, w).from_select(list(row), sa.select(*columns).where(current))
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
            # A clock ahead of ours may have dated an event later than now; it must not come back either.
            moment = datetime.now(UTC)
            for table in (ComparisonRow, RatingRow):
                mine = sa.select(sa.func.max(table.created_at)).filter_by(tenant=self.tenant, user_id=user_id)
                moment = max(connection.scalar(mine) or moment, moment)
            counts = erase(connection, self.tenant, user_id)
            stone = insert_into(self.database.dialect, TombstoneRow).values(
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

    def export(self, user_id: str) -> dict[str, Any]:
        """Everything known of a user, as JSON can hold it; :meth:`mrm_sdk.Client.export_user` states the shape."""
        with self.database.transaction() as connection:
            return export(connection, self.tenant, user_id)

    def prune(self, before: datetime) -> tuple[datetime, dict[str, int]]:
        """Deletes events from before a moment, in one transaction; they stay out when they arrive again.

        Weights that had seen one of them go too, and items that nobody judges any more.

        Returns:
            The moment, or that of an earlier call where it was later, and rows deleted, by table.
        """
        return self._write(lambda connection: prune(connection, self.tenant, before), alone=True)

    def remember_bundle(self, *, fingerprint: str, features: str, name: str) -> None:
        """Notes that this database is used with a bundle; where it is known already, nothing is written."""
        b = BundleRow
        known = sa.select(b.name).where(b.tenant == self.tenant, b.fingerprint == fingerprint)
        with self.database.transaction() as connection:
            if connection.execute(known).first() is not None:
                return
        with self.database.transaction(write=True) as connection:
            connection.execute(
                insert_into(self.database.dialect, BundleRow)
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


def batched(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Consecutive parts of at most ``size`` values."""
    rest = iter(values)
    while part := list(islice(rest, size)):
        yield part


def _vector(data: bytes | None) -> NDArray[np.float32] | None:
    return None if data is None else np.frombuffer(data, np.float32)
