"""What a host application imports: a reward model for each of its users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.bundle.bundle import Bundle
from mrm_sdk.encoders import Encoder, close, open_encoder
from mrm_sdk.engine.adaptation import Personalizer
from mrm_sdk.engine.features import Featurizer
from mrm_sdk.engine.rebuild import rebuild, require_text
from mrm_sdk.engine.recording import record, summarise
from mrm_sdk.engine.serving import Serving
from mrm_sdk.errors import ConfigurationError, InvalidInputError
from mrm_sdk.progress import Progress, no_progress
from mrm_sdk.schemas.feedback import Feedback
from mrm_sdk.schemas.frozen import identifier
from mrm_sdk.schemas.items import AnyResponse, Prompt, ResponseT
from mrm_sdk.schemas.requests import AnyScoreRequest, ScoreRequest, items_of, numbered
from mrm_sdk.schemas.results import Ranked, Rebuilt, Recorded, UserReward
from mrm_sdk.settings import Settings
from mrm_sdk.tracing import traced
from mrm_sdk.user_data import UserData

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine


class Client(UserData):
    """A reward model for every user, on a SQL database, inside the host's process.

    Nothing is opened before the first call that needs the database. Threads may share a client, and a forked child
    process opens connections of its own.

    Args:
        database: ``sqlite:///file.db``, ``sqlite://`` (in memory), ``postgresql+psycopg://…``, a ``sqlalchemy.URL``, or
            a SQLAlchemy engine, which the host closes itself.
        bundle: folder of a bundle, or a loaded one.
        encoder: turns text into embeddings instead of the bundle's own encoder.
        tenant: keeps customers of the host apart: one tenant never sees another's rows.
        remote: reserved for sync with a server, which this version does not have.
        settings: see :class:`~mrm_sdk.Settings`.

    Raises:
        NotFoundError: there is no bundle at that path.
        BundleError: the bundle is damaged, foreign, or does not fit the encoder.
        ConfigurationError: the database URL or another argument is wrong.
        MissingDependencyError: the database's driver is not installed.

    Example:
        >>> from mrm_sdk import Client, Comparison
        >>> answers = ["A phone book.", "See RFC 1034."]
        >>> with Client("sqlite:///mrm.db", bundle="models/mine") as client:
        ...     before = client.score("ada", answers, prompt="What is DNS?")
        ...     client.record(Comparison(user_id="ada", prompt="What is DNS?", chosen=answers[0], rejected=answers[1]))
        ...     after = client.score("ada", answers, prompt="What is DNS?")
        Recorded(accepted=1, duplicates=0, rejected=())
        >>> bool(after[0] - after[1] > before[0] - before[1])
        True
    """

    def __init__(
        self,
        database: str | URL | Engine,
        *,
        bundle: str | Path | Bundle,
        encoder: Encoder | None = None,
        tenant: str = "default",
        remote: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        if remote is not None:
            raise ConfigurationError("This version of mrm-sdk cannot sync yet: leave remote=None.")
        super().__init__(database, tenant=tenant, settings=settings)
        self._own_encoders: list[Encoder] = []
        self._serving = Serving(self._personalizer_of(self._load(bundle), encoder))

    @property
    def bundle(self) -> Bundle:
        """The bundle in use."""
        return self._personalizer.featurizer.bundle

    @traced
    def warm_up(self) -> None:
        """Does now what the first calls would do once: opens and migrates the database, starts the encoder.

        Raises:
            BundleMismatchError: the encoder gives other vectors than when the bundle was made.
            EncoderError: the encoder failed.
            DatabaseError: the database refused.
        """
        self._open()
        self._personalizer.featurizer.warm_up()

    @traced
    def use(self, bundle: str | Path | Bundle, *, encoder: Encoder | None = None) -> None:
        """Switches to another bundle from the next call on; a database can serve several bundles side by side.

        New feedback gets features of the new bundle. A user whose earlier feedback lacks them is still served by the
        previous bundle, until :meth:`rebuild` (or ``mrm rebuild`` in another process) has computed them: no call waits
        for old texts to be encoded. ``personalize`` names the bundle in ``fingerprint``. Vectors of different bundles
        are never mixed. A client created with the new bundle has no previous one, and encodes a user's texts on the
        first call for that user.

        Args:
            bundle: folder of a bundle, or a loaded one.
            encoder: turns text into embeddings instead of the bundle's own encoder.

        Raises:
            BundleMismatchError: this client keeps no texts, and earlier feedback needs them; the message says what to
                do. After this and any other error the client continues with the bundle it had.
            NotFoundError: there is no bundle at that path.
            BundleError: the bundle is damaged, foreign, or does not fit the encoder.
            DatabaseError: the database refused.
        """
        self._open()
        loaded = self._load(bundle)
        personalizer = self._personalizer_of(loaded, encoder)
        if not self._settings.store_text:
            require_text(personalizer.featurizer)
        with self._lock:
            if personalizer.fingerprint == self._personalizer.fingerprint:
                return
            self._remember(loaded)
            self._serving = self._serving.followed_by(personalizer)

    @traced
    def rebuild(self, *, progress: Progress | None = None) -> Rebuilt:
        """Computes what the current bundle lacks of all stored feedback, then adapts every user; may take long.

        Recording and scoring continue meanwhile. An interrupted rebuild resumes when it is called again; nothing is
        computed twice.

        Args:
            progress: called after each chunk with the stage, how much of it is done, and of how much.

        Raises:
            BundleMismatchError: some feedback was stored without its text; everything else is done.
            MrmError: a user could not be adapted; all other users are.
            EncoderError: text could not be encoded; what was stored before stays.
            DatabaseError: the database refused; what was stored before stays.
        """
        self._open()
        personalizer = self._personalizer
        rebuilt = rebuild(personalizer, progress or no_progress)
        with self._lock:
            if personalizer is self._personalizer:
                self._serving = Serving(personalizer)
        return rebuilt

    @traced
    def record(self, feedback: Feedback) -> Recorded:
        """Stores one comparison, rating, thumb or whole ranking; when this returns, it is durable.

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
        outcomes = list(record(self._personalizer.featurizer, [feedback]))
        for _, outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
        return summarise(outcomes)

    @traced
    def record_many(self, feedback: Iterable[Feedback]) -> Recorded:
        """Stores any number of comparisons, ratings, thumbs and rankings, a chunk per transaction, in bounded memory.

        Returns:
            How many were accepted and how many were duplicates, and which ones were refused and why.

        Raises:
            EncoderError: text could not be encoded; earlier chunks stay stored, and calling again is safe.
            DatabaseError: the database refused; earlier chunks stay stored, and calling again is safe.
        """
        self._open()
        argument: object = feedback
        if isinstance(argument, Feedback | str) or not isinstance(argument, Iterable):
            raise InvalidInputError(
                f"record_many takes an iterable of feedback, not a {type(argument).__name__}; record takes one."
            )
        return summarise(record(self._personalizer.featurizer, feedback))

    @traced
    def personalize(self, user_id: str) -> UserReward:
        """Returns a user's reward model, adapted to all feedback so far; an unknown user gets the prior.

        Raises:
            BundleMismatchError: feedback stored without its text has no features under this bundle.
            DatabaseError: the database refused; the stored weights stay as they were.
        """
        self._open()
        user_id = identifier("user_id", user_id)
        return self._serving.personalizer(user_id).personalize(user_id)

    @traced
    def personalize_many(self, user_ids: Iterable[str]) -> dict[str, UserReward]:
        """Returns many users' reward models, as :meth:`personalize` does; the stored ones are read a chunk at a time.

        Users whose stored weights are up to date cost a row of one query; the others are adapted one after another.

        Args:
            user_ids: any number; one that comes again counts once.

        Returns:
            Reward models by user, in the order of ``user_ids``.

        Raises:
            InvalidInputError: an id is wrong; the message says which one, from 0, and no user was adapted.
            MrmError: as :meth:`personalize` raises for the first user who cannot be adapted; those before stay adapted.
        """
        self._open()
        if isinstance(user_ids, str) or not isinstance(user_ids, Iterable):
            raise InvalidInputError(
                f"personalize_many takes an iterable of ids, not a {type(user_ids).__name__}; personalize takes one."
            )
        checked = []
        for number, user_id in enumerate(user_ids):
            with numbered("User", number):
                checked.append(identifier("user_id", user_id))
        return self._serving.personalize_many(list(dict.fromkeys(checked)))

    @traced
    def score(self, user_id: str, responses: Sequence[AnyResponse], *, prompt: Prompt = None) -> NDArray[np.float32]:
        """Scores responses for a user, [n] float32; adapts first if feedback is newer than the stored weights.

        Only differences mean anything: ``σ(score[i] − score[j])`` is the probability that the user prefers i to j.

        Raises:
            InvalidInputError: a response or the prompt is of a wrong type.
            EmbeddingError: an embedding does not fit the bundle.
            EncoderError: text could not be encoded.
            BundleMismatchError: feedback stored without its text has no features under this bundle.
        """
        self._open()
        items = items_of(prompt, responses)
        user_id = identifier("user_id", user_id)
        return self._serving.personalizer(user_id).score(user_id, items)

    @traced
    def score_many(self, requests: Iterable[AnyScoreRequest]) -> list[NDArray[np.float32]]:
        """Scores responses for many users and prompts, as :meth:`score` does, a chunk of requests at a time.

        A chunk holds about ``chunk_size`` responses. All its texts that are new are encoded together, each once, and
        the weights of its users are read by one query; users whose weights are stale are adapted one after another.

        Args:
            requests: any number of :class:`~mrm_sdk.ScoreRequest`, or of tuples ``(user_id, responses)`` or
                ``(user_id, responses, prompt)``. A user may come more than once.

        Returns:
            For each request the scores of its n responses, [n] float32.

        Raises:
            InvalidInputError: a request is wrong; the message says which one, from 0.
            EncoderError: text could not be encoded.
            MrmError: as :meth:`score` raises for the first user who cannot be adapted. After this and any other error,
                users of earlier requests stay adapted.
        """
        self._open()
        if isinstance(requests, str | ScoreRequest) or not isinstance(requests, Iterable):
            raise InvalidInputError(
                f"score_many takes an iterable of requests, not a {type(requests).__name__}; score takes one."
            )
        return self._serving.score_many(requests)

    @traced
    def rank(self, user_id: str, responses: Sequence[ResponseT], *, prompt: Prompt = None) -> list[Ranked[ResponseT]]:
        """Sorts responses for a user, best first; equal scores keep their order. Raises what :meth:`score` raises."""
        scores = self.score(user_id, responses, prompt=prompt)
        order = np.argsort(-scores, kind="stable")
        return [Ranked(index=int(i), score=float(scores[i]), response=responses[i]) for i in order]

    def close(self) -> None:
        """Closes the connections to database and encoder server; an engine or encoder of the host's stays open."""
        super().close()
        for encoder in self._own_encoders:
            close(encoder)

    def __repr__(self) -> str:
        return f"Client({self._database.url!r}, bundle={self.bundle.manifest.name!r}, tenant={self._store.tenant!r})"

    @property
    def _personalizer(self) -> Personalizer:
        return self._serving.current

    def _span_attributes(self) -> Mapping[str, str]:
        return {**super()._span_attributes(), "mrm_sdk.bundle.fingerprint": self.bundle.fingerprint}

    def _prepare(self) -> None:
        super()._prepare()
        self._remember(self.bundle)

    def _load(self, bundle: str | Path | Bundle) -> Bundle:
        return bundle if isinstance(bundle, Bundle) else Bundle(bundle, self._settings)

    def _personalizer_of(self, bundle: Bundle, encoder: Encoder | None) -> Personalizer:
        opened = open_encoder(encoder, bundle)
        if encoder is None and hasattr(opened, "close"):  # the host closes an encoder of its own
            self._own_encoders.append(opened)
        return Personalizer(Featurizer(self._store, bundle, opened, self._settings))

    def _remember(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        self._store.remember_bundle(
            fingerprint=manifest.fingerprint, features_hash=manifest.features, name=manifest.name[:255]
        )
