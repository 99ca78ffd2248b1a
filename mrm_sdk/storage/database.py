"""One database: opening it late, transactions, and trying again what is safe to try again; imports SQLAlchemy."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.pool import StaticPool

from mrm_sdk.errors import ConfigurationError, ContentionError, DatabaseUnavailableError
from mrm_sdk.settings import Settings
from mrm_sdk.storage.connect import open_engine
from mrm_sdk.storage.error_translation import translation, was_lost

logger = logging.getLogger("mrm_sdk")

_ATTEMPTS = 5
_PATIENCE = 5.0  # seconds in all, for a server that is coming back
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
_CHECKPOINT_PATIENCE = 200  # milliseconds
_T = TypeVar("_T")

_open: weakref.WeakSet[Database] = weakref.WeakSet()


class Database:
    """An engine of our own, or the host's, with transactions that fail in this package's words.

    Nothing is opened before the first transaction. Threads may share it; a forked child makes new connections.

    Args:
        database: a URL (``sqlite:///file.db``, ``sqlite://`` in memory, ``postgresql+psycopg://…``) or an engine of
            the host's, which is used as it is and not closed.
        settings: the schema; for a URL also the size of the pool and the busy timeout.
        read_only: leave a SQLite file, its mode and its neighbours as they are.

    Raises:
        ConfigurationError: the URL does not parse, names another kind of database, or one that has no schemas.
        MissingDependencyError: the driver is not installed.
    """

    def __init__(self, database: str | sa.Engine, settings: Settings, *, read_only: bool = False) -> None:
        # Whether the engine is: a host's is used as it is, and not closed.
        self.is_ours = isinstance(database, str)
        if isinstance(database, str):
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
            # A host's own engine is left as it is: this one shares its pool.
            self.engine = self.engine.execution_options(schema_translate_map={None: settings.database_schema})
        # Shares the pool too. A host's engine may have listeners that count on transactions, and settings of its own.
        self._plain = self.engine
        if self.is_ours and self.dialect == "postgresql":
            self._plain = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._reached = False
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
        """Runs ``work`` in one transaction, again where it may succeed then.

        That is where another process changed the same rows in between, and where a server that was reached before
        broke the connection or cannot be reached now, for some seconds. A connection that breaks in the midst of
        COMMIT leaves open whether that took place: ``work`` must do nothing when it finds itself done already.

        Args:
            work: what to do; it may run several times, so it changes nothing but the database.
            write: see :meth:`transaction`, whose errors it raises.

        Raises:
            ContentionError: others kept getting there first.
        """
        return self._repeated(lambda: self.transaction(write=write), work)

    def read(self, work: Callable[[sa.Connection], _T]) -> _T:
        """Runs ``work`` as :meth:`run` does, for statements that each stand for themselves and change nothing.

        On PostgreSQL there is no BEGIN and no COMMIT around them where the engine is ours: they would cost two round
        trips more.
        """
        return self._repeated(lambda: self._connected(self._plain), work)

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
                if self.dialect == "sqlite" or not (self._reached and was_lost(error)):
                    raise
                now = time.monotonic()
                give_up = give_up or now + _PATIENCE
                if now + pause > give_up:
                    raise
                if pause == _FIRST_PAUSE:  # at first at once and in silence: a pool's connection may have died unused
                    logger.warning("%s Trying again for %g seconds.", error, _PATIENCE)
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE) or _FIRST_PAUSE

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[sa.Connection]:
        """Runs a block in one transaction: committed at its end, rolled back when anything fails.

        On SQLite a writing transaction takes the write lock at its start, so that it never fails half-way for it.

        Raises:
            DatabaseUnavailableError: the database cannot be reached, opened or written.
            DatabaseError: it refused for another reason.
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
            with engine.connect() as connection, connection.begin():
                self._reached = True
                yield connection
        except exc.SQLAlchemyError as error:
            raise translation(error, self.url) from error
        finally:
            if self._turn:
                self._turn.release()

    def scrub(self) -> None:
        """Takes what was deleted out of SQLite's log of writes too, as far as nobody is reading it just now.

        Connections of ours overwrite deleted rows in the file itself. On PostgreSQL this does nothing: there both are
        the affair of VACUUM and of the server's own log.
        """
        if self.dialect != "sqlite" or self.is_in_memory:
            return
        # Best effort: whoever reads or writes now leaves it to the next call, or to SQLite's own checkpoint.
        with suppress(exc.SQLAlchemyError, sqlite3.Error), closing(self.engine.raw_connection()) as connection:
            cursor = connection.cursor()
            (patience,) = cursor.execute("PRAGMA busy_timeout").fetchone()
            cursor.execute(f"PRAGMA busy_timeout={_CHECKPOINT_PATIENCE}").fetchone()
            try:
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                cursor.execute(f"PRAGMA busy_timeout={patience}").fetchone()

    def close(self) -> None:
        """Closes the pool; an engine of the host's is left as it is."""
        if not self.is_ours:
            return
        with self._turn or nullcontext():  # a connection in memory may be in the midst of another thread's statement
            self.engine.dispose()


def _accepted(engine: sa.Engine) -> sa.Engine:
    """A host's engine, if it can hold our tables."""
    if engine.dialect.name not in ("sqlite", "postgresql"):
        raise ConfigurationError(
            f"{engine.dialect.name!r} is not supported; hand over an engine of SQLite or PostgreSQL."
        )
    levels = (
        engine.get_execution_options().get("isolation_level"),
        getattr(engine.dialect, "_on_connect_isolation_level", None),
    )
    if engine.dialect.name == "postgresql" and "AUTOCOMMIT" in levels:
        raise ConfigurationError(
            "An engine with AUTOCOMMIT keeps no transactions; hand over "
            "engine.execution_options(isolation_level='READ COMMITTED')."
        )
    return engine


def _after_fork() -> None:
    # The parent's connections belong to the parent: dropped here, not closed.
    for database in list(_open):
        database.engine.dispose(close=False)
        if database._turn:
            database._turn = threading.RLock()


if hasattr(os, "register_at_fork"):  # absent on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
