"""Engines for database URLs, set for durability, privacy and poolers; imports SQLAlchemy."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.pool import NullPool, StaticPool

from mrm_sdk.errors import ConfigurationError, MissingDependencyError
from mrm_sdk.settings import Settings

_CONNECT_TIMEOUT = 10  # seconds; libpq itself waits for an address that does not answer for two minutes
_READ_ONLY = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}


def open_engine(database: str, settings: Settings, *, read_only: bool) -> sa.Engine:
    """Makes the engine of a URL; connects to nothing.

    Raises:
        ConfigurationError: the URL does not parse, or names another kind of database.
        MissingDependencyError: the driver is not installed.
    """
    try:
        url = sa.make_url(database)
        if url.drivername in ("sqlite", "sqlite+pysqlite"):
            return _sqlite(url, settings, read_only)
        if url.drivername in ("postgresql", "postgresql+psycopg"):
            return _postgres(url.set(drivername="postgresql+psycopg"), settings)
    except (exc.ArgumentError, ValueError, TypeError):  # a port that is no number, an option of a wrong type
        raise ConfigurationError(
            "The database URL does not parse. Examples: sqlite:///mrm.db (three slashes), "
            "postgresql+psycopg://user@host/name"
        ) from None
    raise ConfigurationError(f"{url.drivername!r} is not supported; use sqlite:// or postgresql+psycopg://")


def _pool(settings: Settings) -> dict[str, Any]:
    return {"pool_size": settings.pool_size} if settings.pool_size else {"poolclass": NullPool}


def _postgres(url: sa.URL, settings: Settings) -> sa.Engine:
    # A pooler in transaction mode gives each transaction another session, where nothing of ours is prepared.
    arguments: dict[str, Any] = {"prepare_threshold": None}
    if "connect_timeout" not in url.query and "PGCONNECT_TIMEOUT" not in os.environ:
        arguments["connect_timeout"] = _CONNECT_TIMEOUT
    try:
        return sa.create_engine(url, connect_args=arguments, hide_parameters=True, **_pool(settings))
    except ImportError:
        raise MissingDependencyError.of("psycopg", "postgres", "PostgreSQL") from None


def _sqlite(url: sa.URL, settings: Settings, read_only: bool) -> sa.Engine:
    name, patience = url.database, settings.busy_timeout
    if url.host:
        raise ValueError("sqlite://name has two slashes where three belong")
    if name and Path(name).is_dir():
        raise ConfigurationError(f"{name} is a folder; name a file in it.")
    in_memory = not name or ":memory:" in name or url.query.get("mode") == "memory"
    pool = {"poolclass": StaticPool} if in_memory else _pool(settings)
    file = None if in_memory or not name or name.startswith("file:") else Path(name)

    def connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> sqlite3.Connection:
        if read_only and file:
            return _look(file, patience)
        connection: sqlite3.Connection = sqlite3.connect(*arguments, **options)
        try:
            _set(connection, patience)
        except sqlite3.Error as error:
            connection.close()
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if file and code in _READ_ONLY and file.is_file() and not os.access(file.parent, os.W_OK):
                return _look(file, patience)
            raise
        return connection

    def forget(connection: Any, record: Any) -> None:
        if isinstance(connection, _Look):
            record.invalidate(soft=True)

    arguments = {"timeout": patience, "check_same_thread": False}
    engine = sa.create_engine(url, connect_args=arguments, hide_parameters=True, **pool)
    sa.event.listen(engine, "do_connect", connect)
    sa.event.listen(engine, "connect", forget)
    return engine


class _Look(sqlite3.Connection):
    """A look at a file that cannot be written, for one transaction: the next one may find somebody writing it."""


def _look(file: Path, patience: float) -> sqlite3.Connection:
    """Reading leaves two files behind where nobody is writing, unless SQLite is told that nobody does."""
    log = Path(f"{file}-wal")
    mode = "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"
    place = f"{file.absolute().as_uri()}?{mode}"
    return sqlite3.connect(place, patience, uri=True, check_same_thread=False, factory=_Look)


def _set(connection: sqlite3.Connection, patience: float) -> None:
    """Readers never block the writer, commits reach the disk, foreign keys hold, and what is deleted is overwritten."""
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA secure_delete=ON").fetchall()
    give_up = time.monotonic() + patience
    while connection.execute("PRAGMA journal_mode").fetchone() == ("delete",):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            # Changing the mode does not wait for other connections as everything else does.
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.01)
