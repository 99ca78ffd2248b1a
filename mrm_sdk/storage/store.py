"""The store: events in, weights out, all of one tenant.

Vectors go in and out as numpy arrays; their meaning is the engine's business.
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
from mrm_sdk.schemas.results import UserSummary
from mrm_sdk.storage.database import Database
from mrm_sdk.storage.events import ACCEPTED, AnyEvent, Outcome, StoredWeights, UserFeedback, conflict, expired, stale
from mrm_sdk.storage.statements import select
from mrm_sdk.storage.statements.backfill import Backfill
from mrm_sdk.storage.statements.bulk import insert_into
from mrm_sdk.storage.statements.export_user import read_user
from mrm_sdk.storage.statements.forget import delete_user
from mrm_sdk.storage.statements.insert import insert_events, insert_features, insert_features_of, weights_statement
from mrm_sdk.storage.statements.prune import prune, pruned_before
from mrm_sdk.storage.statements.summary import read_summary
from mrm_sdk.storage.tables import BundleRow, ComparisonRow, ItemFeaturesRow, ItemRow

_KEYS_PER_QUERY = 5_000  # below the number of parameters that either database accepts
_T = TypeVar("_T")


class Store:
    """The tables of one tenant; threads may share it.

    Args:
        database: where they are.
        tenant: part of every statement.
        store_text: whether prompts, responses and embeddings are kept, or only hashes and what was computed from them.

    Attributes:
        backfill: reads what a bundle lacks of stored feedback.
    """

    def __init__(self, database: Database, tenant: str, *, store_text: bool = True) -> None:
        self.database, self._store_text = database, store_text
        self.tenant = identifier("tenant", tenant)
        self.backfill = Backfill(database, self.tenant)
        self._lock = int.from_bytes(hashlib.sha256(f"mrm_sdk {tenant}".encode()).digest()[:8], signed=True)

    def add(
        self,
        events: Sequence[AnyEvent],
        *,
        features_hash: str | None = None,
        base_rewards: Mapping[bytes, NDArray[np.float32]] | None = None,
    ) -> list[Outcome]:
        """Stores events in one transaction; when this returns, the accepted ones are durable.

        Args:
            events: in any order; an event id may occur more than once.
            features_hash: ``z`` and ``base_rewards`` are stored under it; ``None`` stores neither. A duplicate gets the
                features that it lacks: so feedback whose text was not kept gets features of another bundle.
            base_rewards: of the events' items, by item key.

        Returns:
            One outcome per event, in order.

        Raises:
            ConfigurationError: text is not kept, and there are no features to store instead.
        """
        if not events:
            return []
        if features_hash is None and not self._store_text:
            raise ConfigurationError(
                "With store_text=False feedback needs a bundle when it is recorded: its features could not be computed "
                "later. Name one (mrm import --bundle BUNDLE, or a Client), or keep texts: store_text=True."
            )
        return self._write(lambda connection: self._add(connection, events, features_hash, base_rewards or {}))

    def _write(self, work: Callable[[sa.Connection], _T], *, alone: bool = False) -> _T:
        """Runs ``work`` in a writing transaction, as :meth:`Database.run` does.

        With ``alone``, no other writer of this tenant runs meanwhile: an item that is being deleted cannot be judged
        again at the same time. SQLite has one writer anyway; on PostgreSQL the others wait for an advisory lock.
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
        features_hash: str | None,
        base_rewards: Mapping[bytes, NDArray[np.float32]],
    ) -> list[Outcome]:
        known = select.contents(connection, self.tenant, {event_id for event in events for event_id in event.contents})
        forgotten = select.tombstones(connection, self.tenant, {event.source.user_id for event in events})
        keeps_since = pruned_before(connection, self.tenant)

        outcomes: list[Outcome] = []
        new: list[AnyEvent] = []
        duplicates: list[AnyEvent] = []
        for event in events:
            source, contents = event.source, event.contents
            forgotten_at = forgotten.get(source.user_id)
            expected = {event_id: content for event_id, content in contents.items() if content is not None}
            stored = {event_id: known[event_id] for event_id in contents if event_id in known}
            is_old = keeps_since is not None and source.created_at < keeps_since
            if stored and stored == expected:
                outcomes.append(Outcome(False))
                duplicates.append(event)
            elif stored and not (is_old and stored.items() <= expected.items()):
                outcomes.append(Outcome(False, conflict(source.event_id)))
            elif keeps_since is not None and is_old:  # also a ranking of which a part has just been pruned
                outcomes.append(Outcome(False, expired(keeps_since)))
            elif forgotten_at is not None and source.created_at <= forgotten_at:
                outcomes.append(Outcome(False, stale(forgotten_at)))
            else:
                known |= expected
                new.append(event)
                outcomes.append(ACCEPTED)
        if new:
            insert_events(connection, self.tenant, new, store_text=self._store_text)
        if features_hash is not None:
            insert_features_of(connection, self.tenant, new + duplicates, features_hash, base_rewards)
        return outcomes

    def add_features(
        self,
        features_hash: str,
        z: Mapping[str, NDArray[np.float32]],
        base_rewards: Mapping[bytes, NDArray[np.float32]],
    ) -> None:
        """Stores features that were computed after their events; stored ones stay, deleted events stay deleted."""
        c, i = ComparisonRow, ItemRow

        def work(connection: sa.Connection) -> None:
            statement: Any = sa.select(i.item_key).where(i.tenant == self.tenant)
            items = self._select(connection, statement, i.item_key, base_rewards)
            statement = sa.select(c.event_id).where(c.tenant == self.tenant)
            events = self._select(connection, statement, c.event_id, z)
            insert_features(
                connection,
                self.tenant,
                features_hash,
                {row.event_id: z[row.event_id] for row in events},
                {row.item_key: base_rewards[row.item_key] for row in items},
            )

        self._write(work)

    def base_rewards(self, features_hash: str, keys: Collection[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """Stored base rewards of items, by key; unknown items are absent."""
        f = ItemFeaturesRow
        statement = sa.select(f.item_key, f.base_rewards).where(
            f.tenant == self.tenant, f.features_hash == features_hash
        )

        def work(connection: sa.Connection) -> dict[bytes, NDArray[np.float32]]:
            rows = self._select(connection, statement, f.item_key, keys)
            return {row.item_key: np.frombuffer(row.base_rewards, np.float32) for row in rows}

        return self.database.read(work)

    def items(self, keys: Collection[bytes]) -> dict[bytes, Item]:
        """Stored items, by key; unknown ones are absent."""
        i = ItemRow
        statement = sa.select(i.item_key, i.prompt, i.response, i.embedding).where(i.tenant == self.tenant)

        def work(connection: sa.Connection) -> dict[bytes, Item]:
            rows = self._select(connection, statement, i.item_key, keys)
            return {row.item_key: Item(row.prompt, row.response, select.vector(row.embedding)) for row in rows}

        return self.database.read(work)

    def weights(self, user_id: str, fingerprint: str) -> tuple[int, StoredWeights | None]:
        """The version of a user's feedback (0: unknown user), and the weights stored under ``fingerprint``."""
        parameters = {"tenant": self.tenant, "user_id": user_id, "of": fingerprint}
        row = self.database.read(lambda connection: connection.execute(select.WEIGHTS, parameters).one_or_none())
        return select.stored_weights(row)

    def weights_of(self, user_ids: Collection[str], fingerprint: str) -> dict[str, tuple[int, StoredWeights | None]]:
        """What :meth:`weights` says of many users, by user; unknown ones are absent."""
        return self.database.read(lambda connection: select.weights_of(connection, self.tenant, user_ids, fingerprint))

    def feedback(self, user_id: str, features_hash: str, *, dated: bool = False) -> UserFeedback:
        """All feedback of a user, with the ``z`` and base rewards that are stored under ``features_hash``.

        With ``dated``, also when each comparison was made.
        """
        parameters = {"tenant": self.tenant, "user_id": user_id, "of": features_hash}
        comparisons = select.DATED_COMPARISONS if dated else select.COMPARISONS

        def work(connection: sa.Connection) -> UserFeedback:
            # The version is read first: events that arrive meanwhile make weights look older, never newer.
            version = connection.scalar(select.FEEDBACK_VERSION, parameters) or 0
            rows = connection.execute(comparisons, parameters), connection.execute(select.RATINGS, parameters)
            return select.user_feedback(version, *rows, dated=dated)

        return self.database.read(work)

    def save_weights(self, user_id: str, fingerprint: str, weights: StoredWeights) -> bool:
        """Stores weights unless another process did since ``weights.revision - 1`` was read (compare-and-set).

        Returns:
            Whether they were stored; also ``False`` if the user's feedback has changed since.
        """
        statement, values = weights_statement(self.database.dialect, self.tenant, user_id, fingerprint, weights)
        return self._write(lambda connection: connection.execute(statement, values).first() is not None)

    def summary(self, user_id: str) -> UserSummary:
        """What is known of a user without any text, as of one moment; zeros and ``None`` of an unknown user."""
        return self.database.read(lambda connection: read_summary(connection, self.tenant, user_id))

    def forget(self, user_id: str) -> dict[str, int]:
        """Deletes a user from every table in one transaction and leaves a tombstone.

        Items that no other user judged are deleted too: they are the user's text.

        Returns:
            Rows deleted, by table.
        """
        counts = self._write(lambda connection: delete_user(connection, self.tenant, user_id), alone=True)
        self.database.scrub()
        return counts

    def export(self, user_id: str) -> dict[str, Any]:
        """All data of a user, in values that JSON can hold; :meth:`mrm_sdk.Client.export_user` states the shape."""

        def work(connection: sa.Connection) -> dict[str, Any]:
            # All statements must see one moment, not each what was committed when it began.
            if self.database.dialect == "sqlite":
                if not connection.connection.in_transaction:  # a host's engine may have begun one itself
                    connection.exec_driver_sql("BEGIN")
            elif self.database.is_ours:
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            else:  # too late if a host's listener has already run a statement: writers wait instead
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(self._lock)))
            return read_user(connection, self.tenant, user_id)

        return self.database.run(work)

    def prune(self, before: datetime) -> tuple[datetime, dict[str, int]]:
        """Deletes events from before a time, in steps of bounded size; they are refused when they arrive again.

        Weights that had seen one of them are deleted too, and so are items that no event refers to any more. If a step
        fails, those before it stay done; call again.

        Returns:
            The time, or the later one of an earlier call, and rows deleted, by table.
        """
        try:
            return prune(self.database, self._write, self.tenant, before)
        finally:
            self.database.scrub()

    def remember_bundle(self, *, fingerprint: str, features_hash: str, name: str) -> None:
        """Notes that this database is used with a bundle; writes nothing if it is noted already."""
        b = BundleRow
        known = sa.select(b.name).where(b.tenant == self.tenant, b.fingerprint == fingerprint)
        if self.database.run(lambda connection: connection.execute(known).first()) is not None:
            return
        row = insert_into(self.database.dialect, BundleRow).values(
            tenant=self.tenant,
            fingerprint=fingerprint,
            features_hash=features_hash,
            name=name,
            first_used_at=datetime.now(UTC),
        )
        self.database.run(lambda connection: connection.execute(row.on_conflict_do_nothing()), write=True)

    @staticmethod
    def _select(connection: sa.Connection, statement: Any, column: Any, values: Collection[Any]) -> Iterator[Any]:
        """Rows in which ``column`` is one of any number of ``values``."""
        for part in batched(values, _KEYS_PER_QUERY):
            yield from connection.execute(statement.where(column.in_(part)))


def batched(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Consecutive chunks of at most ``size`` values."""
    rest = iter(values)
    while part := list(islice(rest, size)):
        yield part
