"""Engines for database URLs, set up for durability, privacy and poolers."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.pool import NullPool, StaticPool

from mrm_sdk.errors import ConfigurationError, MissingDependencyError
from mrm_sdk.settings import Settings

logger = logging.getLogger("mrm_sdk")
_NOT_PARSED = (
    "The database URL does not parse. Examples: sqlite:///mrm.db (three slashes), postgresql+psycopg://user@host/name. "
    "In a password, write %40 for @, %2F for /, %23 for # and %3F for ? (urllib.parse.quote(password, safe='')), or "
    "give a sqlalchemy.URL."
)
_CONNECT_TIMEOUT = 10  # seconds; libpq's own default is two minutes
_READ_ONLY = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}


def open_engine(database: str | sa.URL, settings: Settings, *, read_only: bool) -> sa.Engine:
    """Creates the engine for a URL, without connecting.

    Raises:
        ConfigurationError: the URL does not parse, or names another kind of database.
        MissingDependencyError: the driver is not installed.
    """
    if isinstance(database, str) and _is_ambiguous(database):
        raise ConfigurationError(_NOT_PARSED)
    try:
        url = sa.make_url(database)
        if url.drivername in ("sqlite", "sqlite+pysqlite"):
            return _sqlite(url, settings, read_only)
        if url.drivername in ("postgresql", "postgresql+psycopg"):
            return _postgres(url.set(drivername="postgresql+psycopg"), settings)
    except (exc.ArgumentError, ValueError, TypeError):  # e.g. a port that is not a number, an option of a wrong type
        raise ConfigurationError(_NOT_PARSED) from None
    raise ConfigurationError(f"{url.drivername!r} is not supported; use sqlite:// or postgresql+psycopg://")


def _is_ambiguous(url: str) -> bool:
    """Whether a password holds an @, so that the rest of it would be taken for the host, and be shown as such."""
    user, _, rest = url.partition("//")[2].partition(":")
    if "/" in user or "?" in user or "@" not in rest:
        return False
    address, _, query = rest.partition("@")[2].partition("?")
    return "@" in address or any("@" in option.partition("=")[0] for option in query.split("&"))


def sqlite_file(url: sa.URL) -> Path | None:
    """The absolute path of SQLite's file; ``None`` for other databases, in memory, or named by a URI of SQLite's."""
    name = url.database
    if url.get_backend_name() != "sqlite" or not name or name.startswith((":", "file:")) or ":memory:" in name:
        return None
    return Path(name).absolute() if url.query.get("mode") != "memory" else None


def _pool(settings: Settings) -> dict[str, Any]:
    return {"pool_size": settings.pool_size} if settings.pool_size else {"poolclass": NullPool}


def _postgres(url: sa.URL, settings: Settings) -> sa.Engine:
    # Behind a pooler in transaction mode the next transaction may run in a session that lacks our prepared statements.
    arguments: dict[str, Any] = {"prepare_threshold": None, "client_encoding": "utf8"}
    if "connect_timeout" not in url.query and "PGCONNECT_TIMEOUT" not in os.environ:
        arguments["connect_timeout"] = _CONNECT_TIMEOUT
    try:
        engine = sa.create_engine(url, connect_args=arguments, hide_parameters=True, **_pool(settings))
    except ImportError:
        raise MissingDependencyError.of("psycopg", "postgres", "PostgreSQL") from None
    sa.event.listen(engine, "connect", _set_session)
    return engine


def _set_session(connection: Any, _record: Any) -> None:
    """Sets how dates and strings are written, where the database, the role or the environment have other defaults.

    With SET, which poolers follow for these three, and not in the options of a connection, which some of them refuse.
    """
    if changes := session_changes(connection):
        connection.execute("; ".join(f"SET {change}" for change in changes))
        connection.commit()


def session_changes(connection: Any) -> list[str]:
    """What must follow SET or SET LOCAL, so that a session of psycopg reads and writes values as this package does."""
    told = connection.info.parameter_status  # by the server, as it connects and at each change: asking costs nothing
    changes = []
    if not str(told("DateStyle") or "ISO").startswith("ISO"):
        changes.append("datestyle TO 'ISO'")
    if str(told("TimeZone") or "UTC") not in ("UTC", "Etc/UTC", "GMT"):
        changes.append("timezone TO 'UTC'")
    if told("standard_conforming_strings") == "off":  # psycopg would write keys in arrays with doubled backslashes
        changes.append("standard_conforming_strings TO on")
    return changes


def _sqlite(url: sa.URL, settings: Settings, read_only: bool) -> sa.Engine:
    name, busy_timeout = url.database, settings.busy_timeout
    if url.host:
        raise ValueError("sqlite://name has two slashes where three belong")
    if name and Path(name).is_dir():
        raise ConfigurationError(f"{name} is a folder; name a file in it.")
    in_memory = not name or ":memory:" in name or url.query.get("mode") == "memory"
    pool = {"poolclass": StaticPool} if in_memory else _pool(settings)
    file = sqlite_file(url)

    def connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> sqlite3.Connection:
        if read_only and file:
            return _connect_read_only(file, busy_timeout)
        connection: sqlite3.Connection = sqlite3.connect(*arguments, **options)
        try:
            _configure(connection, busy_timeout)
        except sqlite3.Error as error:
            connection.close()
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if file and code in _READ_ONLY and file.is_file() and not os.access(file.parent, os.W_OK):
                return _connect_read_only(file, busy_timeout)
            raise
        return connection

    def drop_after_use(connection: Any, record: Any) -> None:
        if isinstance(connection, _ReadOnlyConnection):
            record.invalidate(soft=True)

    arguments = {"timeout": busy_timeout, "check_same_thread": False}
    engine = sa.create_engine(url, connect_args=arguments, hide_parameters=True, **pool)
    sa.event.listen(engine, "do_connect", connect)
    sa.event.listen(engine, "connect", drop_after_use)
    return engine


class _ReadOnlyConnection(sqlite3.Connection):
    """Reads a file that cannot be written, for one transaction: by the next one another process may be writing it."""


def _connect_read_only(file: Path, busy_timeout: float) -> sqlite3.Connection:
    """Connects without leaving files behind: without a WAL, it opens the file as immutable."""
    wal = Path(f"{file}-wal")
    mode = "mode=ro" if wal.exists() and wal.stat().st_size else "immutable=1"
    uri = f"{file.absolute().as_uri()}?{mode}"
    return sqlite3.connect(uri, busy_timeout, uri=True, check_same_thread=False, factory=_ReadOnlyConnection)


@cache
def _warn_of_rollback_journal() -> None:
    """Once per process: with a pool of no connections, each transaction opens the file anew."""
    logger.warning(
        "SQLite has no write-ahead log here (a network disk, nolock=1, another VFS): readers and writers wait for each "
        "other. Put the file on a local disk, or use PostgreSQL."
    )


def _configure(connection: sqlite3.Connection, busy_timeout: float) -> None:
    """Readers do not block the writer, commits reach the disk, foreign keys hold, deleted rows are overwritten."""
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA secure_delete=ON").fetchall()
    give_up = time.monotonic() + busy_timeout
    mode = connection.execute("PRAGMA journal_mode").fetchone()
    while mode == ("delete",):
        try:
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            if mode == ("delete",):  # declined without an error, by a file system or a VFS without shared memory
                _warn_of_rollback_journal()
                return
        except sqlite3.OperationalError as error:
            # Changing the mode ignores the busy timeout, unlike all other statements.
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.01)
