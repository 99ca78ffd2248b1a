"""Embeddings on disk, found again by a hash of what was embedded; imports numpy, sqlite3 and errors.

No text is stored. A file may serve several encoders and several processes at once.
"""

from __future__ import annotations

import hashlib
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
_AT_ONCE: Final = 500  # SQLite builds before 3.32 take 999 parameters
_PATIENCE: Final = 30.0  # seconds to wait for another process's transaction

Result = TypeVar("Result")


def key(namespace: str, prompt: str | None, response: str) -> bytes:
    """SHA-256 that stands for a text under an encoder's fingerprint: 32 bytes; no prompt is not an empty prompt.

    Raises:
        UnicodeEncodeError: a text holds a lone surrogate.
    """
    hashed = hashlib.sha256(namespace.encode())
    for part in (None if prompt is None else prompt.encode(), response.encode()):
        # Lengths go in, so that no two pairs of texts run together into the same bytes.
        hashed.update(b"-" if part is None else b"%d:" % len(part) + part)
    return hashed.digest()


class VectorCache:
    """Vectors of one encoder in an SQLite file; from any thread of the process that opened it.

    A cache that cannot be written (a full disk, a lock that stays) costs speed, not answers: that is a warning. One
    whose bytes are damaged is an error, since what it would still return cannot be trusted.

    Args:
        path: of the file; made where there is none, readable by its owner only. Its folder must exist.
        namespace: the encoder's fingerprint.

    Raises:
        ConfigurationError: the file cannot be opened, or is another program's.
        EncoderError: it is damaged.
    """

    def __init__(self, path: str | os.PathLike[str], namespace: str) -> None:
        self.path, self._namespace = Path(path), namespace
        self._lock = threading.Lock()
        self._warned = False
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._database = sqlite3.connect(
                self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
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
            # In this order: another process may just be making both, in one transaction.
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
        # Two processes that make the file at once: SQLite does not wait for a lock on the journal's mode by itself.
        deadline = time.monotonic() + _PATIENCE
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
        """Returns the vectors [D] of those ``keys`` that are known.

        Raises:
            EncoderError: the file is damaged: a row is not ``dimension`` finite numbers.
        """
        wanted = list(keys)

        def read() -> dict[bytes, NDArray[np.float32]]:
            found: dict[bytes, NDArray[np.float32]] = {}
            for start in range(0, len(wanted), _AT_ONCE):
                some = wanted[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                query = f"SELECT key, vector FROM vectors WHERE key IN ({marks})"  # noqa: S608  question marks alone
                rows = self._database.execute(query, some)
                found.update((name, _unpack(vector, dimension)) for name, vector in rows)
            return found

        return self._guarded(read, {})

    def put(self, vectors: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Keeps vectors [D] under their keys, while a probe vouches for them (:meth:`vouch`).

        What cannot be written is dropped, with a warning the first time.

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

    def vouch(self, moment: float) -> None:
        """Notes that the kept probe was the server's too at ``moment``, in seconds since 1970.

        Raises:
            EncoderError: the file is damaged.
        """
        statement = "UPDATE probes SET good = ? WHERE namespace = ?"
        row = (moment, self._namespace)
        self._guarded(lambda: self._transaction(lambda: self._database.execute(statement, row)), None)

    def disown(self) -> None:
        """Forgets this encoder's vectors that any process wrote since its last good probe, and takes none till another.

        Raises:
            EncoderError: the file is damaged.
        """

        def work() -> None:
            good = "(SELECT good FROM probes WHERE namespace = ?)"
            asked = (self._namespace, self._namespace)
            query = f"DELETE FROM vectors WHERE namespace = ? AND written >= {good}"  # noqa: S608  it stands above
            self._database.execute(query, asked)
            self._database.execute("UPDATE probes SET good = NULL WHERE namespace = ?", asked[:1])

        self._guarded(lambda: self._transaction(work), None)

    def known(self) -> NDArray[np.float32] | None:
        """Returns the probe's vector [D] that this encoder's vectors belong to, where there is one.

        Raises:
            EncoderError: the file is damaged.
        """
        asked = "SELECT vector FROM probes WHERE namespace = ?"
        found = self._guarded(lambda: self._database.execute(asked, (self._namespace,)).fetchone(), None)
        return None if found is None else self._guarded(lambda: _unpack(found[0]), None)

    def probe(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Keeps a probe's vector [D] where there is none, and returns the one that is kept; vouches for nothing yet.

        Raises:
            EncoderError: the file is damaged.
        """
        statement = "INSERT OR IGNORE INTO probes (namespace, vector) VALUES (?, ?)"
        row = (self._namespace, _pack(vector))
        self._guarded(lambda: self._transaction(lambda: self._database.execute(statement, row)), None)
        kept = self.known()
        return vector if kept is None else kept

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
            # A full disk has rolled back by itself.
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
        except (sqlite3.DatabaseError, ValueError, TypeError):  # the last two: a row that is no vector
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
