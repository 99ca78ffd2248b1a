"""Turns errors of database drivers into errors of this package."""

from __future__ import annotations

import sqlite3

from sqlalchemy import exc

from mrm_sdk.errors import ConfigurationError, ContentionError, DatabaseError, DatabaseUnavailableError, MrmError

# PostgreSQL: deadlock detected, serialization failure.
_CONTENTION = {"40P01", "40001"}
# A row that another one refers to is missing: of PostgreSQL, and of SQLite (SQLITE_CONSTRAINT_FOREIGNKEY).
_FOREIGN_KEY = {"23503", 787}
_GONE = "the tables are gone; run: mrm db upgrade --database URL"
_TAKEN = "the tables are not in a state that this version made; restore them or use another place"
_RESTARTING = "the server is stopping or starting; try again when it is up"
_UNPREPARED = "behind a pooler give your engine connect_args={'prepare_threshold': None}"
_CONNECTIONS = "lower pool_size, raise the server's max_connections, or put a pooler before it"
# By PostgreSQL's SQLSTATE or SQLite's primary result code: messages may be in any language.
_HINTS: dict[str | int, str] = {
    "25006": "it is read-only, as a replica is; give the URL of the primary server",
    "26000": _UNPREPARED,
    "42P05": _UNPREPARED,
    "42501": "grant this role what it lacks on the tables mrm_* and their schema",
    "3F000": "the schema is gone; run: mrm db upgrade --database URL",
    "42P01": _GONE,
    "42P07": _TAKEN,
    "53100": "free some space on the server; nothing was stored",
    "53300": _CONNECTIONS,
    "55P03": "another transaction holds what this one needs; find it, or raise lock_timeout",
    "57014": "the server cancelled the statement; raise statement_timeout, or find what holds it up",
    "57P01": _RESTARTING,
    "57P02": _RESTARTING,
    "57P03": _RESTARTING,
    "XX001": "its files are damaged; restore a backup",
    "XX002": "an index is damaged; run REINDEX, or restore a backup",
    sqlite3.SQLITE_BUSY: "another process has held the write lock too long; raise busy_timeout or find the long writer",
    sqlite3.SQLITE_READONLY: "the file or its folder is read-only; grant write permission or use another path",
    sqlite3.SQLITE_IOERR: "the disk is full or failing, or a limit on the size of files was met; nothing was stored",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore a backup, or save what can be read: sqlite3 FILE .recover",
    sqlite3.SQLITE_FULL: "free some space; nothing was stored",
    sqlite3.SQLITE_CANTOPEN: "check that the folder exists and may be written",
    sqlite3.SQLITE_NOTADB: "the file holds something else; use another path",
}
# Errors without a code: SQLite's messages are always English, those of a refused connection usually are.
_WORDS = {
    "no such table": _GONE,
    "already exists": _TAKEN,
    "QueuePool": "all connections are in use; raise pool_size, or lower the number of threads",
    "too many": _CONNECTIONS,
    "starting up": _RESTARTING,
    "shutting down": _RESTARTING,
}


def translation(error: exc.SQLAlchemyError, url: str) -> MrmError:
    """Our error for a driver's: what happened at ``url`` (which is shown as it is) and what to do."""
    if isinstance(error, exc.NoSuchModuleError):
        return ConfigurationError(f"No driver for this database: {error}")
    if isinstance(error, exc.IntegrityError) and _is_foreign_key(error):
        return DatabaseError(
            f"{url} refused: rows that others refer to are missing, as after deleting from the tables mrm_* by hand. "
            "Nothing was stored. Restore a backup, and delete users with forget."
        )
    if isinstance(error, exc.IntegrityError):
        return ContentionError("Other processes keep changing the same rows; nothing was stored. Try again.")
    code = _code(error)
    if code in _CONTENTION:
        return ContentionError("Other processes keep holding the same rows; nothing was stored. Try again.")
    reason = _reason(error)
    hint = _HINTS.get(code) if code else None
    hint = hint or next((hint for word, hint in _WORDS.items() if word in reason), None)
    if hint is None and isinstance(error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError):
        sqlite = getattr(getattr(error, "orig", None), "sqlite_errorcode", None) is not None
        hint = (
            "try again"
            if sqlite
            else "check that it runs and can be reached, and the names and the password in the URL"
        )
    if hint is not None:
        return DatabaseUnavailableError(f"The database {url} is unavailable: {reason}. What to do: {hint}.")
    return DatabaseError(f"{url} refused: {reason if isinstance(error, exc.DBAPIError) else type(error).__name__}")


def was_lost(error: DatabaseUnavailableError) -> bool:
    """Whether a connection broke or could not be made: the same work may then succeed on another one."""
    cause = error.__cause__
    return isinstance(cause, exc.DBAPIError) and (
        # There was no connection, so there is no statement and no code.
        cause.connection_invalidated or (cause.statement is None and _code(cause) is None)
    )


def _is_foreign_key(error: exc.IntegrityError) -> bool:
    driver = error.orig
    return bool(_FOREIGN_KEY & {getattr(driver, "sqlstate", None), getattr(driver, "sqlite_errorcode", None)})


def _code(error: exc.SQLAlchemyError) -> str | int | None:
    driver = getattr(error, "orig", None)
    state: str | None = getattr(driver, "sqlstate", None) or getattr(driver, "pgcode", None)
    number: int = getattr(driver, "sqlite_errorcode", None) or 0
    return state or number & 0xFF or None


def _reason(error: exc.SQLAlchemyError) -> str:
    """The driver's own first line: never the statement or its parameters, which may hold user text."""
    text = str(getattr(error, "orig", None) or error)
    return text.strip().split("\n")[0].rstrip(".")
