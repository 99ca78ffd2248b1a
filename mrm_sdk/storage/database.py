"""One database: opened on first use, with transactions that are retried where that is safe."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.pool import StaticPool

from mrm_sdk.errors import ConfigurationError, ContentionError, DatabaseError, DatabaseUnavailableError
from mrm_sdk.settings import Settings
from mrm_sdk.storage.connect import open_engine, session_changes, sqlite_file
from mrm_sdk.storage.error_translation import translation, was_lost

logger = logging.getLogger("mrm_sdk")

_ATTEMPTS = 5
_RETRY_SECONDS = 5.0  # in all, for a server that restarts
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
_CHECKPOINT_TIMEOUT = 200  # milliseconds
_T = TypeVar("_T")

_open: weakref.WeakSet[Database] = weakref.WeakSet()


class Database:
    """An engine of our own or of the host, with transactions that raise this package's errors.

    Nothing is opened before the first transaction. Threads may share it; a forked child makes new connections.

    Args:
        database: a URL (``sqlite:///file.db``, ``sqlite://`` in memory, ``postgresql+psycopg://…``), as text or as
            SQLAlchemy has it, or an engine of the host's, which is used as it is and not closed.
        settings: the schema; for a URL also the size of the pool and the busy timeout.
        read_only: leave a SQLite file, its mode and its neighbours as they are.

    Raises:
        ConfigurationError: the URL does not parse, names another kind of database, or one that has no schemas.
        MissingDependencyError: the driver is not installed.
    """

    def __init__(self, database: str | sa.URL | sa.Engine, settings: Settings, *, read_only: bool = False) -> None:
        # A host's engine is used as it is, and not closed.
        self.is_ours = isinstance(database, str | sa.URL)
        if isinstance(database, str | sa.URL):
            self.engine = open_engine(database, settings, read_only=read_only)
        elif isinstance(database, sa.Engine):
            self.engine = _accepted(database)
        else:
            raise ConfigurationError(
                f"A database is a URL, as 'sqlite:///mrm.db', or a SQLAlchemy engine, not a {type(database).__name__}."
            )
        self.dialect = self.engine.dialect.name
        if settings.database_schema is not None:
            if self.dialect == "sqlite":
                raise ConfigurationError(
                    "SQLite has no schemas: leave database_schema (MRM_DATABASE_SCHEMA) unset. Give mrm-sdk a file of "
                    "its own, or share one: all its tables carry the prefix mrm_."
                )
            # The host's own engine stays unchanged: this one shares its pool.
            self.engine = self.engine.execution_options(schema_translate_map={None: settings.database_schema})
        # For reads; shares the pool. Not for a host's engine, whose listeners may rely on transactions.
        self._read_engine = self.engine
        if self.is_ours and self.dialect == "postgresql":
            self._read_engine = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._was_reached = False
        # A database in memory has one connection for all threads; they take turns.
        shared = isinstance(self.engine.pool, StaticPool)
        self._turn: threading.RLock | None = threading.RLock() if shared else None
        self._file = sqlite_file(self.engine.url) if self.is_ours else None
        self._file_identity: tuple[int, int] | None = None
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
        """Whether the data are lost when this process ends."""
        return self._turn is not None

    @property
    def is_new(self) -> bool:
        """Whether this is a SQLite file that does not exist yet; connecting to it would create it."""
        file = sqlite_file(self.engine.url)
        return file is not None and not os.path.lexists(file)

    def run(self, work: Callable[[sa.Connection], _T], *, write: bool = False) -> _T:
        """Runs ``work`` in one transaction, and again if a repetition may succeed.

        It is repeated if another process changed the same rows meanwhile, and for some seconds if a server that was
        reached before breaks the connection or cannot be reached. If a connection breaks during COMMIT, the commit may
        or may not have happened: ``work`` must do nothing if it was already done.

        Args:
            work: may run several times, so it must change nothing but the database.
            write: see :meth:`transaction`, whose errors it raises.

        Raises:
            ContentionError: other processes kept changing the same rows.
        """
        return self._repeated(lambda: self.transaction(write=write), work)

    def read(self, work: Callable[[sa.Connection], _T]) -> _T:
        """Runs ``work`` as :meth:`run` does, for statements that change nothing and do not depend on each other.

        On PostgreSQL, with an engine of our own, they run without BEGIN and COMMIT, which saves two round trips.
        """
        return self._repeated(lambda: self._connected(self._read_engine), work)

    def _repeated(
        self, connected: Callable[[], AbstractContextManager[sa.Connection]], work: Callable[[sa.Connection], _T]
    ) -> _T:
        attempts, pause, give_up = 1, 0.0, 0.0
        while True:
            try:
                with connected() as connection:
                    return work(connection)
            except ContentionError:
                if attempts == _ATTEMPTS:
                    raise
                attempts += 1
            except DatabaseUnavailableError as error:
                if self.dialect == "sqlite" or not (self._was_reached and was_lost(error)):
                    raise
                now = time.monotonic()
                give_up = give_up or now + _RETRY_SECONDS
                if now + pause > give_up:
                    raise
                if pause == _FIRST_PAUSE:  # not at the first, immediate retry: an idle connection may have died
                    logger.warning("%s Trying again for %g seconds.", error, _RETRY_SECONDS)
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE) or _FIRST_PAUSE

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[sa.Connection]:
        """Runs a block in one transaction: committed at its end, rolled back if anything fails.

        On SQLite a writing transaction takes the write lock at its start, so that it never waits for it half-way.

        Raises:
            DatabaseUnavailableError: the database cannot be reached, opened or written.
            DatabaseError: it refused for another reason, or its file was deleted or replaced while it was open.
        """
        with self._connected(self.engine) as connection:
            if write and self.dialect == "sqlite":
                if connection.connection.in_transaction:  # a host's engine may begin by itself
                    connection.exec_driver_sql("ROLLBACK")
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    @contextmanager
    def _connected(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        if self._turn:
            self._turn.acquire()
        try:
            self._check_file()
            with engine.connect() as connection, connection.begin(), self._session_of_host(connection):
                self._was_reached = True
                yield connection
            self._check_file()
        except exc.SQLAlchemyError as error:
            raise translation(error, self.url) from error
        finally:
            if self._turn:
                self._turn.release()

    @contextmanager
    def _session_of_host(self, connection: sa.Connection) -> Iterator[None]:
        """For one transaction on a host's engine of psycopg: rows as tuples, and the session as our own engines set it.

        SQLAlchemy needs tuples, also where a host has made the driver return dicts.
        """
        driver: Any = connection.connection.driver_connection
        if self.is_ours or self.dialect != "postgresql" or not hasattr(driver, "row_factory"):
            yield
            return
        from psycopg.rows import tuple_row

        factory, driver.row_factory = driver.row_factory, tuple_row
        try:
            if changes := session_changes(driver):
                connection.exec_driver_sql("; ".join(f"SET LOCAL {change}" for change in changes))
            yield
        finally:
            driver.row_factory = factory

    def _check_file(self) -> None:
        """Makes sure that SQLite's file is still the one that was opened: an open one outlives its name.

        Raises:
            DatabaseError: it was deleted, or another file has its name.
        """
        if self._file is None or (self._file_identity is None and not self._was_reached):
            return
        try:
            status = os.stat(self._file)
            identity = status.st_dev, status.st_ino
        except OSError:
            identity = None
        self._file_identity = self._file_identity or identity
        if identity is None or identity != self._file_identity:
            raise DatabaseError(
                f"The database file {self._file} was deleted or replaced while it was open, and what was written since "
                "is lost. Put it back, or make a new client to use the file that is there."
            )

    def scrub(self) -> None:
        """Removes deleted rows from SQLite's WAL too, unless another process is reading it right now.

        Our connections overwrite deleted rows in the file itself. On PostgreSQL this does nothing: deleted rows are
        left to VACUUM, and the WAL to the server.
        """
        if self.dialect != "sqlite" or self.is_in_memory:
            return
        # Best effort: if the WAL is in use, the next call or SQLite's own checkpoint does it.
        with suppress(exc.SQLAlchemyError, sqlite3.Error), closing(self.engine.raw_connection()) as connection:
            cursor = connection.cursor()
            (busy_timeout,) = cursor.execute("PRAGMA busy_timeout").fetchone()
            cursor.execute(f"PRAGMA busy_timeout={_CHECKPOINT_TIMEOUT}").fetchone()
            try:
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                cursor.execute(f"PRAGMA busy_timeout={busy_timeout}").fetchone()

    def close(self) -> None:
        """Closes the pool; an engine of the host stays open."""
        if not self.is_ours:
            return
        with self._turn or nullcontext():  # another thread may be running a statement on the one connection in memory
            self.engine.dispose()


def _accepted(engine: sa.Engine) -> sa.Engine:
    """Returns a host's engine if it can hold our tables."""
    if engine.dialect.name not in ("sqlite", "postgresql"):
        raise ConfigurationError(f"{engine.dialect.name!r} is not supported; use an engine of SQLite or PostgreSQL.")
    levels = (
        engine.get_execution_options().get("isolation_level"),
        getattr(engine.dialect, "_on_connect_isolation_level", None),
    )
    if engine.dialect.name == "postgresql" and "AUTOCOMMIT" in levels:
        raise ConfigurationError(
            "An engine with AUTOCOMMIT has no transactions; use "
            "engine.execution_options(isolation_level='READ COMMITTED')."
        )
    return engine


def _after_fork() -> None:
    # The parent's connections belong to the parent: drop them here without closing them.
    for database in list(_open):
        database.engine.dispose(close=False)
        if database._turn:
            database._turn = threading.RLock()


if hasattr(os, "register_at_fork"):  # absent on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
