"""Embeddings on disk, by a hash of what was embedded.

No text is stored. A file may serve several encoders and several processes at once.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.errors import ConfigurationError, EncoderError

logger = logging.getLogger("mrm_sdk")

APPLICATION: Final = 0x6D726D65  # "mrme": tells this file from other SQLite databases
_KEYS_PER_QUERY: Final = 500  # SQLite builds before 3.32 take 999 parameters
_BUSY_TIMEOUT: Final = 30.0  # seconds to wait for another process's transaction

Result = TypeVar("Result")


class VectorCache:
    """Vectors of one encoder in an SQLite file; threads of the process that opened it may share it.

    A cache that cannot be written (a full disk, a lock that stays) costs speed, not answers: that is a warning. A
    damaged cache is an error, because its vectors cannot be trusted.

    Args:
        path: of the file; created if missing, readable by its owner only. Its folder must exist.
        namespace: the encoder's fingerprint.

    Raises:
        ConfigurationError: the file cannot be opened, or belongs to another program.
        EncoderError: it is damaged.
    """

    def __init__(self, path: str | os.PathLike[str], namespace: str) -> None:
        self.path, self._namespace = Path(path), namespace
        self._lock = threading.Lock()
        self._warned = False
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._database = sqlite3.connect(
                self.path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigurationError(
                f"The cache {self.path} cannot be opened ({reason}): name a file that can be written, in a folder that "
                "exists."
            ) from None
        try:
            self._prepare()
        except BaseException:
            self._database.close()
            raise

    def _prepare(self) -> None:
        try:
            self._journal()
            # In this order: another process may be creating both right now, in one transaction.
            (tables,) = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            (application,) = self._database.execute("PRAGMA application_id").fetchone()
            if application != APPLICATION and tables:
                raise ConfigurationError(f"{self.path} is another program's database: name a file of its own.")
            self._database.execute("PRAGMA synchronous=NORMAL")
            if application != APPLICATION or "good" not in self._columns():
                self._transaction(self._make)
        except sqlite3.OperationalError as error:
            raise ConfigurationError(
                f"The cache {self.path} cannot be used ({error}): name a file on a local disk that can be written."
            ) from None
        except sqlite3.DatabaseError:
            raise self._damaged() from None

    def _make(self) -> None:
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, namespace TEXT NOT NULL, "
            "written REAL NOT NULL, vector BLOB NOT NULL)"
        )
        self._database.execute("CREATE TABLE IF NOT EXISTS probes (namespace TEXT PRIMARY KEY, vector BLOB NOT NULL)")
        if "good" not in self._columns():
            self._database.execute("ALTER TABLE probes ADD COLUMN good REAL")
        self._database.execute(f"PRAGMA application_id={APPLICATION}")

    def _columns(self) -> set[str]:
        return {name for _, name, *_ in self._database.execute("PRAGMA table_info(probes)")}

    def _journal(self) -> None:
        # For two processes that create the file at once: SQLite does not wait for a lock on the journal mode by itself.
        deadline = time.monotonic() + _BUSY_TIMEOUT
        while True:
            try:
                self._database.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def get(self, keys: Collection[bytes], dimension: int) -> dict[bytes, NDArray[np.float32]]:
        """Returns the cached vectors [D] among ``keys``.

        Raises:
            EncoderError: the file is damaged: a row is not ``dimension`` finite numbers.
        """
        wanted = list(keys)

        def read() -> dict[bytes, NDArray[np.float32]]:
            vectors: dict[bytes, NDArray[np.float32]] = {}
            for start in range(0, len(wanted), _KEYS_PER_QUERY):
                chunk = wanted[start : start + _KEYS_PER_QUERY]
                marks = ",".join("?" * len(chunk))
                query = f"SELECT key, vector FROM vectors WHERE key IN ({marks})"  # noqa: S608  only question marks
                rows = self._database.execute(query, chunk)
                vectors.update((name, _unpack(vector, dimension)) for name, vector in rows)
            return vectors

        return self._guarded(read, {})

    def put(self, vectors: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Stores vectors [D] under their keys, if the probe is confirmed (:meth:`confirm_probe`).

        Vectors that cannot be written are dropped, with a warning the first time.

        Raises:
            EncoderError: the file is damaged.
        """
        now = time.time()
        rows = [(name, self._namespace, now, _pack(vector), self._namespace) for name, vector in vectors.items()]
        statement = (
            "INSERT OR REPLACE INTO vectors (key, namespace, written, vector) SELECT ?, ?, ?, ? "
            "WHERE EXISTS (SELECT 1 FROM probes WHERE namespace = ? AND good IS NOT NULL)"
        )
        self._guarded(lambda: self._transaction(lambda: self._database.executemany(statement, rows)), None)

    def confirm_probe(self, moment: float) -> None:
        """Notes that the server gave the stored probe's vector at ``moment``, in seconds since 1970.

        Raises:
            EncoderError: the file is damaged.
        """
        statement = "UPDATE probes SET good = ? WHERE namespace = ?"
        row = (moment, self._namespace)
        self._guarded(lambda: self._transaction(lambda: self._database.execute(statement, row)), None)

    def drop_unconfirmed(self) -> None:
        """Deletes this encoder's vectors written since its last confirmed probe; stores none until the next one.

        Raises:
            EncoderError: the file is damaged.
        """

        def work() -> None:
            good = "(SELECT good FROM probes WHERE namespace = ?)"
            parameters = (self._namespace, self._namespace)
            query = f"DELETE FROM vectors WHERE namespace = ? AND written >= {good}"  # noqa: S608  a constant
            self._database.execute(query, parameters)
            self._database.execute("UPDATE probes SET good = NULL WHERE namespace = ?", parameters[:1])

        self._guarded(lambda: self._transaction(work), None)

    def known_probe(self) -> NDArray[np.float32] | None:
        """Returns the probe's vector [D] that this encoder's vectors belong to, if there is one.

        Raises:
            EncoderError: the file is damaged.
        """
        query = "SELECT vector FROM probes WHERE namespace = ?"
        row = self._guarded(lambda: self._database.execute(query, (self._namespace,)).fetchone(), None)
        return None if row is None else self._guarded(lambda: _unpack(row[0]), None)

    def store_probe(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Stores a probe's vector [D] if there is none, and returns the stored one; does not confirm it.

        Raises:
            EncoderError: the file is damaged.
        """
        statement = "INSERT OR IGNORE INTO probes (namespace, vector) VALUES (?, ?)"
        row = (self._namespace, _pack(vector))
        self._guarded(lambda: self._transaction(lambda: self._database.execute(statement, row)), None)
        stored = self.known_probe()
        return vector if stored is None else stored

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._database.close()

    def _transaction(self, work: Callable[[], object]) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            work()
            self._database.execute("COMMIT")
        except BaseException:
            # After a full disk SQLite has already rolled back.
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def _guarded(self, work: Callable[[], Result], otherwise: Result) -> Result:
        try:
            with self._lock:
                return work()
        except sqlite3.OperationalError as error:
            if not self._warned:
                self._warned = True
                logger.warning("The cache %s is not used for now (%s); answers are complete.", self.path, error)
            return otherwise
        except sqlite3.ProgrammingError:  # closed by another thread
            return otherwise
        except (sqlite3.DatabaseError, ValueError, TypeError):  # the last two: a row that is not a vector
            raise self._damaged() from None

    def _damaged(self) -> EncoderError:
        return EncoderError(f"The cache {self.path} is damaged: delete it (and its -wal and -shm); it fills again.")


def _pack(vector: NDArray[np.float32]) -> bytes:
    return vector.astype("<f4").tobytes()


def _unpack(data: bytes, dimension: int | None = None) -> NDArray[np.float32]:
    vector = np.frombuffer(data, "<f4").astype(np.float32)
    if not vector.size or dimension not in (None, vector.size) or not np.isfinite(vector).all():
        raise ValueError
    return vector
