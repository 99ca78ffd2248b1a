"""One database: opening it late, transactions, and its driver's errors turned into ours; imports SQLAlchemy."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.pool import StaticPool

from mrm_sdk.errors import (
    ConfigurationError,
    ContentionError,
    DatabaseError,
    DatabaseUnavailableError,
    MissingDependencyError,
)
from mrm_sdk.settings import Settings

# PostgreSQL: deadlock detected, serialization failure.
_CONTENTION = {"40P01", "40001"}
_ATTEMPTS = 5
_T = TypeVar("_T")

_open: weakref.WeakSet[Database] = weakref.WeakSet()


class Database:
    """An engine of our own, or the host's, with transactions that fail in this package's words.

    Nothing is opened before the first transaction. Threads may share it; a forked child makes new connections.

    Args:
        database: a URL (``sqlite:///file.db``, ``sqlite://`` in memory, ``postgresql+psycopg://…``) or an engine of
            the host's, which is used as it is and not closed.
        settings: the busy timeout.
        read_only: leave a SQLite file, its mode and its neighbours as they are.

    Raises:
        ConfigurationError: the URL does not parse, or names another kind of database.
        MissingDependencyError: the driver is not installed.
    """

    def __init__(self, database: str | sa.Engine, settings: Settings, *, read_only: bool = False) -> None:
        self._owned = isinstance(database, str)
        if isinstance(database, str):
            self.engine = _create(database, settings, read_only)
        elif isinstance(database, sa.Engine):
            self.engine = database
        else:
            raise ConfigurationError(
                f"A database is a URL, as 'sqlite:///mrm.db', or a SQLAlchemy engine, not a {type(database).__name__}."
            )
        self.dialect = self.engine.dialect.name
        # One connection serves all threads of a database in memory; they take turns.
        shared = isinstance(self.engine.pool, StaticPool)
        self._turn: threading.RLock | None = threading.RLock() if shared else None
        _open.add(self)

    @property
    def url(self) -> str:
        """The database's URL with its password masked."""
        url = self.engine.url
        secret = [key for key in url.query if "password" in key.lower()]
        shown = url.update_query_dict(dict.fromkeys(secret, "***")).render_as_string(hide_password=True)
        return shown.replace("%2A", "*")

    @property
    def is_in_memory(self) -> bool:
        """Whether the data are gone with this process."""
        return self._turn is not None

    @property
    def is_new(self) -> bool:
        """Whether this is a SQLite file that does not exist yet; looking at it by connecting would create it."""
        name = self.engine.url.database
        return (
            self.dialect == "sqlite"
            and bool(name)
            and not str(name).startswith((":", "file:"))
            and not os.path.lexists(str(name))
        )

    def run(self, work: Callable[[sa.Connection], _T], *, write: bool = False) -> _T:
        """Runs ``work`` in one transaction, again where another process changed the same rows in between.

        Args:
            work: what to do; it may run several times, so it changes nothing but the database.
            write: see :meth:`transaction`, whose errors it raises.

        Raises:
            ContentionError: others kept getting there first.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self.transaction(write=write) as connection:
                    return work(connection)
            except ContentionError:
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[sa.Connection]:
        """Runs a block in one transaction: committed at its end, rolled back when anything fails.

        On SQLite a writing transaction takes the write lock at its start, so that it never fails half-way for it.

        Raises:
            DatabaseUnavailableError: the database cannot be reached, opened or written.
            DatabaseError: it refused for another reason.
        """
        if self._turn:
            self._turn.acquire()
        try:
            with self._translated(), self.engine.connect() as connection, connection.begin():
                if write and self.dialect == "sqlite":
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
        finally:
            if self._turn:
                self._turn.release()

    def close(self) -> None:
        """Closes the pool; an engine of the host's is left as it is."""
        if not self._owned:
            return
        with self._turn or nullcontext():  # a connection in memory may be in the midst of another thread's statement
            self.engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except exc.IntegrityError as error:
            raise ContentionError(
                "Other processes keep changing the same rows; nothing was stored. Try again."
            ) from error
        except exc.NoSuchModuleError as error:
            raise ConfigurationError(f"No driver for this database: {error}") from None
        except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
            if getattr(getattr(error, "orig", None), "sqlstate", None) in _CONTENTION:
                raise ContentionError(
                    "Other processes keep holding the same rows; nothing was stored. Try again."
                ) from error
            raise DatabaseUnavailableError(self._explain(error)) from error
        except exc.DBAPIError as error:
            if "not a database" in str(error.orig):
                raise DatabaseUnavailableError(self._explain(error)) from error
            raise DatabaseError(f"{self.url} refused: {_reason(error)}") from error
        except exc.SQLAlchemyError as error:
            raise DatabaseError(f"{self.url} refused: {type(error).__name__}") from error

    def _explain(self, error: exc.SQLAlchemyError) -> str:
        reason = _reason(error)
        hints = {
            "locked": "another process has held the write lock too long; raise busy_timeout or find the long writer",
            "readonly": "the file or its folder is read-only; grant write permission or use another path",
            "unable to open": "check that the folder exists and may be written",
            "not a database": "the file holds something else; use another path",
            "no such table": "the tables are gone; run: mrm db upgrade --database URL",
            "already exists": "the tables are not in a state that this version made; restore them or use another place",
            "full": "free some space; nothing was stored",
        }
        hint = next((hint for word, hint in hints.items() if word in reason), "check that it runs and can be reached")
        return f"The database {self.url} is unavailable: {reason}. What to do: {hint}."


def _reason(error: exc.SQLAlchemyError) -> str:
    """The driver's own first line: never the statement or its parameters, which may hold user text."""
    text = str(getattr(error, "orig", None) or error)
    return text.strip().split("\n")[0].rstrip(".")


def _create(database: str, settings: Settings, read_only: bool) -> sa.Engine:
    try:
        url = sa.make_url(database)
        return _engine(url, settings, read_only)
    except (exc.ArgumentError, ValueError, TypeError):  # a port that is no number, an option of a wrong type
        raise ConfigurationError(
            "The database URL does not parse. Examples: sqlite:///mrm.db (three slashes), "
            "postgresql+psycopg://user@host/name"
        ) from None


def _engine(url: sa.URL, settings: Settings, read_only: bool) -> sa.Engine:
    common: dict[str, Any] = {"hide_parameters": True}
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        arguments = {"timeout": settings.busy_timeout, "check_same_thread": False}
        if url.host:
            raise ValueError("sqlite://name has two slashes where three belong")
        if url.database and Path(url.database).is_dir():
            raise ConfigurationError(f"{url.database} is a folder; name a file in it.")
        if not url.database or ":memory:" in url.database or url.query.get("mode") == "memory":
            common["poolclass"] = StaticPool
        elif read_only and not url.database.startswith("file:"):
            file = Path(url.database)
            return sa.create_engine(url, creator=lambda: _only_look(file, settings.busy_timeout), **common)
        engine = sa.create_engine(url, connect_args=arguments, **common)
        sa.event.listen(engine, "connect", lambda connection, _: _sqlite_pragmas(connection, settings.busy_timeout))
        return engine
    if url.drivername in ("postgresql", "postgresql+psycopg"):
        try:
            return sa.create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True, **common)
        except ImportError:
            raise MissingDependencyError.of("psycopg", "postgres", "PostgreSQL") from None
    raise ConfigurationError(f"{url.drivername!r} is not supported; use sqlite:// or postgresql+psycopg://")


def _only_look(file: Path, patience: float) -> sqlite3.Connection:
    """Reading leaves two files behind where nobody is writing, unless SQLite is told that nobody does."""
    log = Path(f"{file}-wal")
    mode = "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"
    return sqlite3.connect(f"{file.absolute().as_uri()}?{mode}", patience, uri=True, check_same_thread=False)


def _sqlite_pragmas(connection: sqlite3.Connection, patience: float) -> None:
    """Readers never block the writer, commits reach the disk, and foreign keys hold."""
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    give_up = time.monotonic() + patience
    while connection.execute("PRAGMA journal_mode").fetchone() == ("delete",):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            # Changing the mode does not wait for other connections as everything else does.
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.01)


def _after_fork() -> None:
    # The parent's connections belong to the parent: dropped here, not closed.
    for database in list(_open):
        database.engine.dispose(close=False)
        if database._turn:
            database._turn = threading.RLock()


if hasattr(os, "register_at_fork"):  # absent on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
