"""What a host application imports: a reward model for each of its users."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.bundle.bundle import Bundle
from mrm_sdk.encoders import Encoder, close, open_encoder
from mrm_sdk.engine import RewardEngine
from mrm_sdk.errors import ClientClosedError, ConfigurationError, InvalidInputError
from mrm_sdk.progress import Progress, no_progress
from mrm_sdk.schemas.feedback import Feedback
from mrm_sdk.schemas.frozen import identifier
from mrm_sdk.schemas.items import Item, Prompt, Response
from mrm_sdk.schemas.results import Forgotten, Pruned, Ranked, Rebuilt, Recorded, UserReward
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database, Store, upgrade
from mrm_sdk.storage.migrate import require_current
from mrm_sdk.storage.recording import collect
from mrm_sdk.tracing import traced

if TYPE_CHECKING:
    from sqlalchemy import Engine


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Client:
    """A reward model for every user, on a SQL database, inside the host's process.

    Nothing is opened before the first call that needs the database; threads may share a client, and a forked child
    makes connections of its own.

    Args:
        database: ``sqlite:///file.db``, ``sqlite://`` (in memory), ``postgresql+psycopg://…``, or an engine of the
            host's, which stays the host's to close.
        bundle: folder of a bundle, or a loaded one.
        encoder: turns text into embeddings, where the bundle's own should not.
        tenant: keeps customers of the host apart: one tenant never sees another's rows.
        remote: reserved for sync with a server, which this version does not have.
        settings: see :class:`~mrm_sdk.Settings`.

    Raises:
        NotFoundError: there is no bundle at that path.
        BundleError: the bundle is damaged, foreign, or does not fit the encoder.
        ConfigurationError: the database URL or another argument is wrong.
        MissingDependencyError: the database's driver is not installed.
    """

    def __init__(
        self,
        database: str | Engine,
        *,
        bundle: str | Path | Bundle,
        encoder: Encoder | None = None,
        tenant: str = "default",
        remote: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        if remote is not None:
            raise ConfigurationError("This version of mrm-sdk cannot sync yet: leave remote=None.")
        if settings is not None and not isinstance(settings, Settings):
            raise ConfigurationError(f"settings must be a Settings, not a {type(settings).__name__}.")
        self._settings = settings or Settings()
        self._bundle = self._load(bundle)
        self._database = Database(database, self._settings)
        self._store = Store(self._database, tenant, store_text=self._settings.store_text)
        self._own_encoders: list[Encoder] = []
        self._engine = self._engine_of(self._bundle, encoder)
        self._former: RewardEngine | None = None
        self._lock = threading.Lock()
        self._ready = False
        self._closed = False
        _clients.add(self)

    @property
    def bundle(self) -> Bundle:
        """The bundle in use."""
        return self._bundle

    @traced
    def use(self, bundle: str | Path | Bundle, *, encoder: Encoder | None = None) -> None:
        """Goes over to another bundle, from the next call on; several lie side by side in one database.

        What is recorded from now on gets features of the new bundle. A user whose earlier feedback has none yet is
        served by the bundle in use before, until :meth:`rebuild` (or ``mrm rebuild`` in another process) has been
        there: no call waits for old texts to be encoded. ``personalize`` names the bundle in ``fingerprint``. Vectors
        of different bundles never meet. A client made with the new bundle has no former one, and encodes a user's
        texts when that user is first wanted.

        Args:
            bundle: folder of a bundle, or a loaded one.
            encoder: turns text into embeddings, where the bundle's own should not.

        Raises:
            BundleMismatchError: this client keeps no texts, and earlier feedback needs them; the message says what to
                do. In this case and the others the client goes on as it was.
            NotFoundError: there is no bundle at that path.
            BundleError: the bundle is damaged, foreign, or does not fit the encoder.
            DatabaseError: the database refused.
        """
        self._open()
        loaded = self._load(bundle)
        engine = self._engine_of(loaded, encoder)
        if not self._settings.store_text:
            engine.require_text()
        with self._lock:
            if engine.fingerprint == self._engine.fingerprint:
                return
            self._remember(loaded)
            # One that has not seen all feedback itself is nobody's to fall back on.
            waiting = self._former is not None and not self._engine.is_complete
            self._former = self._former if waiting else self._engine
            self._bundle, self._engine = loaded, engine

    @traced
    def rebuild(self, *, progress: Progress | None = None) -> Rebuilt:
        """Computes what the bundle in use lacks of all stored feedback, then adapts every user; may take long.

        Others go on recording and scoring meanwhile. One that was stopped, or killed, goes on where it was when it is
        called again; what is there already is not computed again.

        Args:
            progress: is told, after each part, what is being done, how much of it is done, and of how much.

        Raises:
            BundleMismatchError: some feedback was stored without its text; everything else is done.
            MrmError: a user could not be adapted; everybody else is.
            EncoderError: text could not be encoded; what was stored before stays.
            DatabaseError: the database refused; likewise.
        """
        self._open()
        engine = self._engine
        rebuilt = engine.rebuild(progress or no_progress)
        with self._lock:
            if engine is self._engine:
                self._former = None  # everybody is reached
        return rebuilt

    @traced
    def record(self, feedback: Feedback) -> Recorded:
        """Stores one comparison, rating, thumb or ranking (whole); when this returns, it is durable.

        Returns:
            Whether it was accepted, or a duplicate of an event recorded before.

        Raises:
            ConflictError: its event id was recorded before with other content.
            UserForgottenError: it is older than its user's deletion.
            EventExpiredError: it is older than what :meth:`prune` keeps.
            EmbeddingError: an embedding does not fit the bundle.
            EncoderError: its text could not be encoded.
            DatabaseError: the database refused; nothing was stored.
        """
        self._open()
        outcomes = list(self._engine.observe([feedback]))
        for _, outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
        return collect(outcomes)

    @traced
    def record_many(self, feedback: Iterable[Feedback]) -> Recorded:
        """Stores comparisons, ratings, thumbs and rankings of any number, a chunk per transaction, in bounded memory.

        Returns:
            How many were accepted and how many were duplicates, and which ones were refused and why.

        Raises:
            EncoderError: text could not be encoded; chunks before stay stored, and calling again is safe.
            DatabaseError: the database refused; likewise.
        """
        self._open()
        given: object = feedback
        if isinstance(given, Feedback | str) or not isinstance(given, Iterable):
            raise InvalidInputError(
                f"record_many takes an iterable of feedback, not a {type(given).__name__}; record takes one."
            )
        return collect(self._engine.observe(feedback))

    @traced
    def personalize(self, user_id: str) -> UserReward:
        """Returns a user's reward model, adapted to all feedback so far; an unknown user gets the prior.

        Raises:
            BundleMismatchError: feedback stored without its text has no features under this bundle.
            DatabaseError: the database refused; the stored weights stay as they were.
        """
        self._open()
        user_id = identifier("user_id", user_id)
        return self._serving(user_id).personalize(user_id)

    @traced
    def score(self, user_id: str, responses: Sequence[str | Response], *, prompt: Prompt = None) -> NDArray[np.float32]:
        """Scores responses for a user, [n] float32; adapts first where feedback is newer than the weights.

        Only differences mean anything: ``σ(score[i] − score[j])`` is the probability that the user prefers i to j.

        Raises:
            InvalidInputError: a response or the prompt is of a wrong type.
            EmbeddingError: an embedding does not fit the bundle.
            EncoderError: text could not be encoded.
            BundleMismatchError: see :meth:`personalize`.
        """
        self._open()
        if isinstance(responses, str | Response) or not isinstance(responses, Sequence):
            raise InvalidInputError(f"Responses must be a list of them, not a {type(responses).__name__}.")
        items = [Item.of(prompt, response) for response in responses]
        user_id = identifier("user_id", user_id)
        return self._serving(user_id).score(user_id, items)

    @traced
    def rank(self, user_id: str, responses: Sequence[str | Response], *, prompt: Prompt = None) -> list[Ranked]:
        """Sorts responses for a user, best first; equal scores keep their order. Raises as :meth:`score`."""
        scores = self.score(user_id, responses, prompt=prompt)
        order = np.argsort(-scores, kind="stable")
        return [Ranked(index=int(i), score=float(scores[i]), response=responses[i]) for i in order]

    @traced
    def forget(self, user_id: str) -> Forgotten:
        """Deletes everything known of a user, in one transaction, and keeps older events out for good.

        Returns:
            How many rows went from each table.
        """
        self._open()
        user_id = identifier("user_id", user_id)
        return Forgotten(user_id=user_id, rows=self._store.forget(user_id))

    @traced
    def export_user(self, user_id: str) -> dict[str, Any]:
        """Returns everything known of a user, as it stood at one moment, in values that ``json.dumps`` takes.

        Returns:
            ``format`` (1), ``exported_at``, ``tenant``, ``user_id``, and, empty where nothing is known:

            - ``comparisons``: ``event_id``, ``created_at``, ``prompt``, ``chosen``, ``rejected``, ``tie``,
              ``strength``, ``z`` ([K] by hash of features), by event id; rankings are the comparisons that they make;
            - ``ratings``, thumbs among them: ``event_id``, ``created_at``, ``prompt``, ``response``, ``value``,
              ``strength``;
            - ``weights`` by fingerprint: ``weights`` [K], ``covariance`` [K, K] or ``None``, ``comparisons``,
              ``revision``;
            - ``outbox``: ``event_id``, ``kind``, ``created_at``; ``tombstones``: ``event_id``, ``forgotten_at``;
            - ``counts``: rows by table.

            ``chosen``, ``rejected`` and ``response`` hold ``item`` (hash of the content, in hex), ``text``,
            ``embedding`` [D], ``base_rewards`` ([K] by hash of features). Times are ISO 8601, in UTC.

        Raises:
            DatabaseError: the database refused.
        """
        self._open()
        return self._store.export(identifier("user_id", user_id))

    @traced
    def prune(self, *, older_than: timedelta | datetime) -> Pruned:
        """Deletes all users' events from before a moment, or of a greater age, in steps of bounded size.

        From the first step on, what is older stays out when it arrives again (``EventExpiredError``). Each step is a
        transaction, between which others write: where one fails, those before it stay done, and calling again goes on.
        Weights that had seen one go too, and are adapted anew when they are next wanted; so do texts that nobody
        judges any more, and users of whom nothing is left. An earlier moment than that of the last call changes
        nothing.

        Args:
            older_than: an age, or a moment with a time zone; by an event's ``created_at``.

        Returns:
            The moment, and how many rows went from each table.

        Raises:
            InvalidInputError: it is of another type, without a time zone, in the future, or outside of the calendar.
            DatabaseError: the database refused; what earlier steps deleted stays deleted.
        """
        self._open()
        before, rows = self._store.prune(_moment(older_than))
        return Pruned(before=before, rows=rows)

    def close(self) -> None:
        """Closes the connections to the database and to the encoder's server; what is the host's is left open."""
        self._closed = True
        self._database.close()
        for encoder in self._own_encoders:
            close(encoder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._database.url!r}, bundle={self._bundle.manifest.name!r}, tenant={self._store.tenant!r})"

    def _span_attributes(self) -> dict[str, str]:
        return {"db.system.name": self._database.dialect, "mrm_sdk.bundle.fingerprint": self._bundle.fingerprint}

    def _open(self) -> None:
        if self._closed:
            raise ClientClosedError("This client is closed; make a new one.")
        if self._ready:
            return
        with self._lock:
            if not self._ready:
                if self._settings.auto_migrate:
                    upgrade(self._database)
                else:
                    require_current(self._database)
                self._remember(self._bundle)
                self._ready = True

    def _load(self, bundle: str | Path | Bundle) -> Bundle:
        return bundle if isinstance(bundle, Bundle) else Bundle(bundle, self._settings)

    def _engine_of(self, bundle: Bundle, encoder: Encoder | None) -> RewardEngine:
        opened = open_encoder(encoder, bundle)
        if encoder is None and hasattr(opened, "close"):  # one that the host handed in stays the host's to close
            self._own_encoders.append(opened)
        return RewardEngine(self._store, bundle, opened, self._settings)

    def _remember(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        self._store.remember_bundle(
            fingerprint=manifest.fingerprint, features=manifest.features, name=manifest.name[:255]
        )

    def _serving(self, user_id: str) -> RewardEngine:
        """What serves a user: after a change of bundles the former one, until the new one has the user's features."""
        engine, former = self._engine, self._former
        return engine if former is None or engine.has_reached(user_id) else former


def _moment(older_than: timedelta | datetime) -> datetime:
    now = datetime.now(UTC)
    try:
        moment = now - older_than if isinstance(older_than, timedelta) else older_than
        if not isinstance(moment, datetime) or moment.utcoffset() is None:
            raise InvalidInputError("older_than must be a timedelta, or a datetime with a time zone.")
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise InvalidInputError("older_than lies outside of the calendar.") from None
    if moment > now:
        raise InvalidInputError("older_than lies in the future: all feedback would go, and new feedback be refused.")
    return moment


def _after_fork() -> None:
    for client in list(_clients):
        client._lock = threading.Lock()  # a thread that did not survive may have held the old one


if hasattr(os, "register_at_fork"):  # absent on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
