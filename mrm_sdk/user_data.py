"""The users of one tenant, and what is kept of them; needs no bundle and loads no torch."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mrm_sdk.engine.retention import moment_of
from mrm_sdk.errors import ClientClosedError, ConfigurationError, InvalidInputError
from mrm_sdk.schemas.frozen import identifier
from mrm_sdk.schemas.results import Forgotten, Pruned, UserSummary
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database, Store, upgrade
from mrm_sdk.storage.migrate import require_current
from mrm_sdk.tracing import traced

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine


_opened: weakref.WeakSet[UserData] = weakref.WeakSet()


class UserData:
    """Lists, sums up, exports and deletes what is kept of a tenant's users: the part of a client that needs no bundle.

    Nothing is opened before the first call that needs the database. Threads may share it, and a forked child process
    opens connections of its own.

    Args:
        database: as for :class:`~mrm_sdk.Client`.
        tenant: keeps customers of the host apart: one tenant never sees another's rows.
        settings: see :class:`~mrm_sdk.Settings`.

    Raises:
        ConfigurationError: the database URL or another argument is wrong.
        MissingDependencyError: the database's driver is not installed.
    """

    def __init__(
        self, database: str | URL | Engine, *, tenant: str = "default", settings: Settings | None = None
    ) -> None:
        if settings is not None and not isinstance(settings, Settings):
            raise ConfigurationError(f"settings must be a Settings, not a {type(settings).__name__}.")
        self._settings = settings or Settings()
        self._database = Database(database, self._settings)
        self._store = Store(self._database, tenant, store_text=self._settings.store_text)
        self._lock = threading.Lock()
        self._ready = False
        self._closed = False
        _opened.add(self)

    @traced
    def users(self, *, after: str = "", limit: int = 1000) -> list[str]:
        """Ids of users with feedback, a page at a time: pass the last id of one page as ``after`` for the next.

        Args:
            after: only ids behind this one, in the database's order of texts.
            limit: at most this many, 1 or more.

        Returns:
            Ids, in the database's order; fewer than ``limit`` on the last page.

        Raises:
            InvalidInputError: ``after`` is no text, or ``limit`` is below 1.
            DatabaseError: the database refused.
        """
        if type(limit) is not int or limit < 1:
            raise InvalidInputError("limit must be a whole number, 1 or more.")
        after = identifier("after", after) if after != "" else ""
        self._open()
        return self._store.backfill.users(after=after, limit=limit)

    @traced
    def summary(self, user_id: str) -> UserSummary:
        """What is known of a user, without any text: counts, times, and how far the stored weights have come.

        Nothing is adapted for it. Everything is read by one statement, so as of one moment; of an unknown user it is
        zeros and ``None``.

        Raises:
            InvalidInputError: the id is no text, or too long.
            DatabaseError: the database refused.
        """
        self._open()
        return self._store.summary(identifier("user_id", user_id))

    @traced
    def forget(self, user_id: str) -> Forgotten:
        """Deletes all data of a user in one transaction; older events that arrive again stay out.

        Returns:
            How many rows of each table were deleted.
        """
        self._open()
        user_id = identifier("user_id", user_id)
        return Forgotten(user_id=user_id, rows=self._store.forget(user_id))

    @traced
    def export_user(self, user_id: str) -> dict[str, Any]:
        """Returns all data of a user, as of one moment, in values that ``json.dumps`` takes.

        Returns:
            ``format`` (1), ``exported_at``, ``tenant``, ``user_id``, and, empty if there is no data:

            - ``comparisons``: ``event_id``, ``created_at``, ``prompt``, ``chosen``, ``rejected``, ``tie``,
              ``strength``, ``z`` ([K] by features hash), in order of event ids; a ranking appears as its comparisons;
            - ``ratings``, thumbs among them: ``event_id``, ``created_at``, ``prompt``, ``response``, ``value``,
              ``strength``;
            - ``weights`` by fingerprint: ``weights`` [K], ``covariance`` [K, K] or ``None``, ``comparisons``,
              ``counted``, ``revision``;
            - ``outbox``: ``event_id``, ``kind``, ``created_at``; ``tombstones``: ``event_id``, ``forgotten_at``;
            - ``counts``: rows by table.

            ``chosen``, ``rejected`` and ``response`` hold ``item`` (hash of the content, in hex), ``text``,
            ``embedding`` [D], ``base_rewards`` ([K] by features hash). Times are ISO 8601, in UTC.

        Raises:
            DatabaseError: the database refused.
        """
        self._open()
        return self._store.export(identifier("user_id", user_id))

    @traced
    def prune(self, *, older_than: timedelta | datetime) -> Pruned:
        """Deletes all users' events from before a moment, or of a greater age, in steps of bounded size.

        From the first step on, older events that arrive again are refused (``EventExpiredError``). Each step is a
        transaction, and others can write in between: if a step fails, the steps before it stay done, and calling again
        resumes. Weights that had seen a deleted event are deleted too and adapted again when they are next needed; so
        are texts that no remaining event refers to, and users without data. A call with an earlier moment than the
        last one changes nothing.

        Args:
            older_than: an age, or a moment with a time zone; by an event's ``created_at``.

        Returns:
            The moment, and how many rows of each table were deleted.

        Raises:
            InvalidInputError: it is of another type, without a time zone, in the future, or outside of the calendar.
            DatabaseError: the database refused; what earlier steps deleted stays deleted.
        """
        self._open()
        before, rows = self._store.prune(moment_of(older_than))
        return Pruned(before=before, rows=rows)

    def close(self) -> None:
        """Closes the connections to the database; an engine of the host's stays open."""
        self._closed = True
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._database.url!r}, tenant={self._store.tenant!r})"

    def _span_attributes(self) -> Mapping[str, str]:
        return {"db.system.name": self._database.dialect}

    def _open(self) -> None:
        if self._closed:
            raise ClientClosedError("This client is closed; make a new one.")
        if self._ready:
            return
        with self._lock:
            if not self._ready:
                self._prepare()
                self._ready = True

    def _prepare(self) -> None:
        """What the first call does: the tables are brought up to date, or found to be."""
        if self._settings.auto_migrate:
            upgrade(self._database)
        else:
            require_current(self._database)


def _after_fork() -> None:
    for opened in list(_opened):
        opened._lock = threading.Lock()  # a thread of the parent may have held the old one


if hasattr(os, "register_at_fork"):  # absent on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
