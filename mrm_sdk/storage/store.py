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
from mrm_sdk.schemas.frozen import identifier
from mrm_sdk.schemas.items import Item
from mrm_sdk.storage.database import Database
from mrm_sdk.storage.events import (
    ACCEPTED,
    AnyEvent,
    Outcome,
    StoredWeights,
    UserFeedback,
    conflict,
    expired,
    stale,
)
from mrm_sdk.storage.statements import backfill as rebuilding
from mrm_sdk.storage.statements import insert as insertion
from mrm_sdk.storage.statements import select as reading
from mrm_sdk.storage.statements.bulk import insert_into
from mrm_sdk.storage.statements.export_user import export
from mrm_sdk.storage.statements.forget import erase
from mrm_sdk.storage.statements.insert import insert_events, insert_features, insert_features_of
from mrm_sdk.storage.statements.prune import line, prune
from mrm_sdk.storage.tables import (
    BundleRow,
    ComparisonRow,
    ItemFeaturesRow,
    ItemRow,
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
        known = reading.contents(connection, self.tenant, {event_id for event in events for event_id in event.contents})
        forgotten = reading.tombstones(connection, self.tenant, {event.source.user_id for event in events})
        pruned_before = line(connection, self.tenant)

        outcomes: list[Outcome] = []
        new: list[AnyEvent] = []
        again: list[AnyEvent] = []
        for event in events:
            source, contents = event.source, event.contents
            gone = forgotten.get(source.user_id)
            whole = {event_id: content for event_id, content in contents.items() if content is not None}
            found = {event_id: known[event_id] for event_id in contents if event_id in known}
            is_old = pruned_before is not None and source.created_at < pruned_before
            if found and found == whole:
                outcomes.append(Outcome(False))
                again.append(event)
            elif found and not (is_old and found.items() <= whole.items()):
                outcomes.append(Outcome(False, conflict(source.event_id)))
            elif pruned_before is not None and is_old:  # also a ranking of which a part has been pruned just now
                outcomes.append(Outcome(False, expired(pruned_before)))
            elif gone is not None and source.created_at <= gone:
                outcomes.append(Outcome(False, stale(gone)))
            else:
                known |= whole
                new.append(event)
                outcomes.append(ACCEPTED)
        if new:
            insert_events(connection, self.tenant, new, store_text=self._store_text)
        if features is not None:
            insert_features_of(connection, self.tenant, new + again, features, base_rewards)
        return outcomes

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

        def work(connection: sa.Connection) -> dict[bytes, NDArray[np.float32]]:
            rows = self._select(connection, query, f.item_key, keys)
            return {row.item_key: np.frombuffer(row.base_rewards, np.float32) for row in rows}

        return self.database.read(work)

    def items(self, keys: Collection[bytes]) -> dict[bytes, Item]:
        """Stored items, by key; unknown ones are absent."""
        i = ItemRow
        query = sa.select(i.item_key, i.prompt, i.response, i.embedding).where(i.tenant == self.tenant)

        def work(connection: sa.Connection) -> dict[bytes, Item]:
            rows = self._select(connection, query, i.item_key, keys)
            return {row.item_key: Item(row.prompt, row.response, reading.vector(row.embedding)) for row in rows}

        return self.database.read(work)

    def unencoded_items(self, features: str, *, after: bytes, limit: int) -> dict[bytes, Item]:
        """The next items, by key and in its order, that have no base rewards under ``features``."""
        return self.database.read(lambda c: rebuilding.items(c, self.tenant, features, after, limit))

    def unencoded_comparisons(self, features: str, *, after: str, limit: int) -> list[tuple[str, bytes, bytes]]:
        """The next comparisons that have no ``z`` under ``features``: event id, keys of chosen and rejected."""
        return self.database.read(lambda c: rebuilding.comparisons(c, self.tenant, features, after, limit))

    def unencoded_counts(self, features: str) -> tuple[int, int, int]:
        """How many items and comparisons have no features yet, and how many users there are."""
        return self.database.read(lambda c: rebuilding.counts(c, self.tenant, features))

    def users(self, *, after: str, limit: int) -> list[str]:
        """The next users who have given feedback, in an order of the database's own."""
        return self.database.read(lambda c: rebuilding.users(c, self.tenant, after, limit))

    def is_textless(self, features: str) -> bool:
        """Whether features are missing that can never be computed, for the text was not kept."""
        return self.database.read(lambda c: rebuilding.is_textless(c, self.tenant, features))

    def lacks_features(self, user_id: str, features: str) -> bool:
        """Whether something that a user has judged has no base rewards yet."""
        return self.database.read(lambda c: rebuilding.lacks_features(c, self.tenant, user_id, features))

    def weights(self, user_id: str, fingerprint: str) -> tuple[int, StoredWeights | None]:
        """How much feedback a user has given (0: unknown user), and the stored weights."""
        return self.database.read(lambda connection: reading.weights(connection, self.tenant, user_id, fingerprint))

    def feedback(self, user_id: str, features: str, *, dated: bool = False) -> UserFeedback:
        """All feedback of a user, with ``z`` and base rewards under ``features`` where they are stored.

        With ``dated``, also when each comparison was made.
        """
        return self.database.read(
            lambda connection: reading.feedback(connection, self.tenant, user_id, features, dated=dated)
        )

    def save_weights(self, user_id: str, fingerprint: str, weights: StoredWeights) -> bool:
        """Stores weights if nobody else did since ``weights.revision - 1`` was read (compare-and-set).

        Returns:
            Whether they were stored; ``False`` also where the user's feedback is no longer what they have seen.
        """
        return self._write(
            lambda connection: insertion.save_weights(connection, self.tenant, user_id, fingerprint, weights)
        )

    def forget(self, user_id: str) -> dict[str, int]:
        """Deletes a user from every table in one transaction and leaves a tombstone.

        Items that nobody else judged go too: they are the user's text.

        Returns:
            Rows deleted, by table.
        """
        counts = self._write(lambda connection: erase(connection, self.tenant, user_id), alone=True)
        self.database.scrub()
        return counts

    def export(self, user_id: str) -> dict[str, Any]:
        """Everything known of a user, as JSON can hold it; :meth:`mrm_sdk.Client.export_user` states the shape."""

        def work(connection: sa.Connection) -> dict[str, Any]:
            # Without these, each statement would see what was committed when it began.
            if self.database.dialect == "sqlite":
                if not connection.connection.in_transaction:  # a host's engine may have begun one itself
                    connection.exec_driver_sql("BEGIN")
            elif self.database.is_ours:
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            else:  # a host's listener may have run a statement already, after which that is too late: writers wait
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(self._lock)))
            return export(connection, self.tenant, user_id)

        return self.database.run(work)

    def prune(self, before: datetime) -> tuple[datetime, dict[str, int]]:
        """Deletes events from before a moment, in steps of bounded size; they stay out when they arrive again.

        Weights that had seen one of them go too, and items that nobody judges any more. Where a step fails, those
        before it stay done: call again.

        Returns:
            The moment, or that of an earlier call where it was later, and rows deleted, by table.
        """
        try:
            return prune(self.database, self._write, self.tenant, before)
        finally:
            self.database.scrub()

    def remember_bundle(self, *, fingerprint: str, features: str, name: str) -> None:
        """Notes that this database is used with a bundle; where it is known already, nothing is written."""
        b = BundleRow
        known = sa.select(b.name).where(b.tenant == self.tenant, b.fingerprint == fingerprint)
        if self.database.run(lambda connection: connection.execute(known).first()) is not None:
            return
        row = insert_into(self.database.dialect, BundleRow).values(
            tenant=self.tenant,
            fingerprint=fingerprint,
            features=features,
            name=name,
            first_used_at=datetime.now(UTC),
        )
        self.database.run(lambda connection: connection.execute(row.on_conflict_do_nothing()), write=True)

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
