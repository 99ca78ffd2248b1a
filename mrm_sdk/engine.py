"""Observe, adapt, score: the only place where storage, bundle and core meet.

Feature differences are computed once, when feedback arrives, and stored beside it. Adaptation afterwards touches
neither text nor encoder: a user with N comparisons is an N×K matrix.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from mrm_sdk.bundle.bundle import Bundle
from mrm_sdk.bundle.encoder_spec import digest
from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.drift import discounts, rating_discounts
from mrm_sdk.core.ratings import pairs_of_ratings
from mrm_sdk.encoders import Encoder, base_rewards, check
from mrm_sdk.errors import (
    BundleMismatchError,
    ContentionError,
    DatabaseError,
    EmbeddingError,
    EncoderError,
    InvalidInputError,
    MrmError,
)
from mrm_sdk.progress import Progress
from mrm_sdk.schemas.feedback import Feedback
from mrm_sdk.schemas.items import Item, Prompt, Response
from mrm_sdk.schemas.results import Rebuilt, UserReward
from mrm_sdk.settings import Settings
from mrm_sdk.storage.events import (
    NO_FEEDBACK,
    AnyEvent,
    ItemOf,
    Outcome,
    StoredRating,
    StoredWeights,
    UserFeedback,
    event_of,
)
from mrm_sdk.storage.recording import in_chunks
from mrm_sdk.storage.store import Store
from mrm_sdk.tracing import span

logger = logging.getLogger("mrm_sdk")

_RETRIES = 8
_LARGEST = 1e6
_engines: weakref.WeakSet[RewardEngine] = weakref.WeakSet()


class RewardEngine:
    """Keeps each user's weights in step with each user's feedback; safe to share between threads.

    Args:
        store: the tables of one tenant.
        bundle: base reward functions, prior and inner loop.
        encoder: turns text into embeddings of the bundle's dimension.
        settings: cache and chunk sizes.
    """

    def __init__(self, store: Store, bundle: Bundle, encoder: Encoder, settings: Settings) -> None:
        self._store, self._bundle, self._encoder, self._settings = store, bundle, encoder, settings
        # Vectors of a host's own encoder are kept apart from those of any other, under hashes that name it too.
        foreign = encoder.fingerprint != bundle.manifest.encoder.fingerprint
        self._features = digest([bundle.features, encoder.fingerprint]) if foreign else bundle.features
        self._fingerprint = digest([bundle.fingerprint, encoder.fingerprint]) if foreign else bundle.fingerprint
        # Weights adapted with another half-life than the bundle's are kept apart likewise.
        own, given = bundle.manifest.adaptation.half_life, settings.half_life
        self._half_life = own if given is None else given.total_seconds() or None
        if self._half_life != own:
            self._fingerprint = digest([self._fingerprint, {"half_life": self._half_life}])
        self._cache: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._cache_lock = threading.Lock()
        self._prior_weights, self._prior_covariance = self._adapt(NO_FEEDBACK)
        _engines.add(self)

    def observe(self, feedback: Iterable[Feedback]) -> Iterator[tuple[int, Outcome]]:
        """Stores feedback, a chunk per transaction, and yields each one's index and outcome once it is durable.

        Raises:
            EncoderError: the encoder failed; everything yielded before stays stored.
            DatabaseError: the database refused; likewise.
        """
        for chunk in in_chunks(feedback, self._settings.chunk_size):
            refused: list[tuple[int, Outcome]] = []
            events: list[tuple[int, AnyEvent]] = []
            items = _Items(self._encoder)
            for index, given in chunk:
                try:
                    events.append((index, _event(given, items)))
                except (InvalidInputError, EncoderError) as error:
                    refused.append((index, Outcome(False, error)))
            rewards = self._base_rewards(item for _, event in events for item in event.items)
            useless = {key for key, vector in rewards.items() if not _usable(vector)}
            if useless:
                bad = {index for index, event in events if not useless.isdisjoint(item.key for item in event.items)}
                refused += [(index, Outcome(False, _overflow())) for index in bad]
                events = [(index, event) for index, event in events if index not in bad]
            outcomes = self._store.add([event for _, event in events], features=self._features, base_rewards=rewards)
            yield from sorted([*refused, *zip((index for index, _ in events), outcomes, strict=True)])

    def personalize(self, user_id: str) -> UserReward:
        """Returns a user's weights, adapted first where feedback is newer than they are.

        Weights are stored only while the feedback that they have seen is still all there is. Where others record
        faster than this, what was computed last is returned and left for the next call to store.
        """
        new = None
        for _ in range(_RETRIES):
            given, stored = self._store.weights(user_id, self._fingerprint)
            if given == 0:
                return self._reward(user_id, StoredWeights(self._prior_weights, self._prior_covariance, 0, 0, 0))
            if stored is not None and stored.feedback == given:
                return self._reward(user_id, stored)
            feedback = self._store.feedback(user_id, self._features, dated=self._half_life is not None)
            completed = self._complete(feedback)
            if completed is None:
                continue
            with span("adapt", comparisons=len(completed.z), ratings=len(completed.ratings)):
                weights, covariance = self._adapt(completed)
            revision = 1 if stored is None else stored.revision + 1
            seen = len(completed.z) + len(completed.ratings)
            new = StoredWeights(weights, covariance, seen, feedback.feedback, revision)
            if self._store.save_weights(user_id, self._fingerprint, new):
                return self._reward(user_id, new)
        if new is None:
            raise ContentionError("Other processes keep forgetting and recording this user. Try again.")
        return self._reward(user_id, replace(new, revision=new.revision - 1))

    def score(self, user_id: str, items: Sequence[Item]) -> NDArray[np.float32]:
        """Rewards of items for a user, [n] float32; adapts first where feedback is newer than the weights.

        Raises:
            EmbeddingError: an item's embedding does not fit.
            EncoderError: the encoder failed.
        """
        weights = self.personalize(user_id).weights
        for item in items:
            check(self._encoder, item)
        features = self._base_rewards(items)
        rewards = np.array([features[item.key] for item in items], np.float64).reshape(len(items), len(weights))
        scores = (rewards @ weights).astype(np.float32)
        if not np.isfinite(scores).all():
            raise _overflow()
        return scores

    def has_reached(self, user_id: str) -> bool:
        """Whether a user was adapted under this bundle before, or can be without encoding anything.

        Where texts are not kept, only the second counts: what somebody recorded since under another bundle could not
        be encoded.
        """
        _, stored = self._store.weights(user_id, self._fingerprint)
        adapted = stored is not None and self._settings.store_text
        return adapted or not self._store.lacks_features(user_id, self._features)

    @property
    def fingerprint(self) -> str:
        """Under which weights are stored: the bundle's, unless encoder or half-life are others than its own."""
        return self._fingerprint

    @property
    def is_complete(self) -> bool:
        """Whether nothing that was ever recorded has to be encoded any more."""
        return not self._store.unencoded_items(self._features, after=b"", limit=1)

    def require_text(self) -> None:
        """Makes sure that features which are still to be computed can be.

        Raises:
            BundleMismatchError: they cannot, for neither text nor embedding was kept.
        """
        if self._store.is_textless(self._features):
            raise _textless("this tenant's")

    def rebuild(self, progress: Progress) -> Rebuilt:
        """Computes what this bundle lacks of all stored feedback, a part per transaction, then adapts every user.

        What is there already is left as it is: a rebuild that was stopped goes on where it was.

        Raises:
            BundleMismatchError: at the end, where neither text nor embedding of some feedback was kept.
            MrmError: at the end, the first user who could not be adapted.
        """
        failure: MrmError | None = None
        size = self._settings.chunk_size
        totals = self._store.unencoded_counts(self._features)
        done, textless, key, event_id, user_id = [0, 0, 0], False, b"", "", ""
        while items := self._store.unencoded_items(self._features, after=key, limit=size):
            key = max(items)
            kept = [item for item in items.values() if item.text is not None or item.embedding is not None]
            textless |= len(kept) < len(items)
            encodable = [item for item in kept if self._can_take(item)]
            with span("encode", items=len(encodable)):
                rewards = base_rewards(self._encoder, self._bundle, encodable)
            usable = {item.key: row for item, row in zip(encodable, rewards, strict=True) if _usable(row)}
            self._store.add_features(self._features, {}, usable)
            done[0] += len(usable)
            progress("encoding", min(done[0], totals[0]), totals[0])
        while rows := self._store.unencoded_comparisons(self._features, after=event_id, limit=size):
            event_id = rows[-1][0]
            found = self._store.base_rewards(self._features, {item for _, *sides in rows for item in sides})
            z = {name: found[one] - found[two] for name, one, two in rows if one in found and two in found}
            self._store.add_features(self._features, z, {})
            done[1] += len(z)
            progress("comparing", min(done[1], totals[1]), totals[1])
        while users := self._store.users(after=user_id, limit=size):
            user_id = users[-1]
            for user in users:
                try:
                    self.personalize(user)
                    done[2] += 1
                except MrmError as error:  # one user's trouble is not the next one's
                    if isinstance(error, DatabaseError) and not isinstance(error, ContentionError):
                        raise
                    failure = failure or error
            progress("adapting", min(done[2], totals[2]), totals[2])
        if textless:
            raise _textless("this tenant's")
        if failure is not None:
            raise failure
        return Rebuilt(items=done[0], comparisons=done[1], users=done[2])

    def _complete(self, feedback: UserFeedback) -> UserFeedback | None:
        """The same feedback with all its features; those that were never computed are, and are stored.

        What this bundle cannot take (an embedding of another size, recorded where no bundle was at hand) is left out
        with a warning, so that one such event does not cost a user everything.

        Returns:
            ``None`` where the user was forgotten in this very moment.

        Raises:
            BundleMismatchError: features are missing, and so is the text that they would be computed from.
        """
        missing = {key for pair, z in zip(feedback.items, feedback.z, strict=True) if z is None for key in pair}
        missing |= {rating.item for rating in feedback.ratings if rating.base_rewards is None}
        if not missing:
            return feedback
        computed = self._store.base_rewards(self._features, missing)
        missing -= computed.keys()
        items = self._store.items(missing)
        if len(items) < len(missing):
            return None
        if any(item.text is None and item.embedding is None for item in items.values()):
            raise _textless("this user's")
        computed |= self._base_rewards([item for item in items.values() if self._can_take(item)])
        features = {key: vector for key, vector in computed.items() if _usable(vector)}
        z, ratings, new = list(feedback.z), list(feedback.ratings), {}
        for row, (chosen, rejected) in enumerate(feedback.items):
            if z[row] is None and chosen in features and rejected in features:
                z[row] = new[feedback.event_ids[row]] = features[chosen] - features[rejected]
        for row, rating in enumerate(ratings):
            if rating.base_rewards is None and rating.item in features:
                ratings[row] = rating._replace(base_rewards=features[rating.item])
        self._store.add_features(self._features, new, features)
        completed = replace(feedback, z=z, ratings=ratings)
        for event_id in completed.unencoded:
            logger.warning("event %s does not fit the bundle and is left out", event_id)
        return completed.encoded()

    def _can_take(self, item: Item) -> bool:
        try:
            check(self._encoder, item)
        except (EmbeddingError, EncoderError):
            return False
        return True

    def _adapt(self, feedback: UserFeedback) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        strength, old_ratings = np.array(feedback.strength, np.float64), np.ones(len(feedback.ratings))
        if self._half_life is not None:
            moments = [*(feedback.created_at or ()), *(rating.created_at for rating in feedback.ratings)]
            old, old_ratings = np.split(discounts(moments, self._half_life), [len(strength)])
            strength *= old
        user = Pairs(
            torch.from_numpy(self._matrix(feedback.z)),
            torch.from_numpy(strength),
            torch.tensor(feedback.tie, dtype=torch.float64),
        )
        if feedback.ratings:
            user = Pairs(*map(torch.cat, zip(user, self._rated(feedback.ratings, old_ratings), strict=True)))
        weights, covariance = self._bundle.adapt(Pairs(*(field.unsqueeze(0) for field in user)))
        if not bool(torch.isfinite(weights).all()):
            raise MrmError("Adaptation gave NaN or infinity; the stored weights stay. Check the embeddings' scale.")
        return weights[0].numpy(), None if covariance is None else covariance[0].numpy()

    def _rated(self, ratings: Sequence[StoredRating], old: NDArray[np.float64]) -> Pairs:
        prompts = {key: number for number, key in enumerate(dict.fromkeys(rating.prompt for rating in ratings))}
        prompt = np.array([prompts[rating.prompt] for rating in ratings], np.int64)
        return pairs_of_ratings(
            np.array([rating.value for rating in ratings], np.float64),
            self._matrix([rating.base_rewards for rating in ratings]),
            prompt,
            np.array([rating.strength for rating in ratings], np.float64) * rating_discounts(old, prompt),
        )

    def _matrix(self, vectors: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float64]:
        return np.array(vectors, np.float64).reshape(len(vectors), self._bundle.manifest.base_functions)

    def _reward(self, user_id: str, stored: StoredWeights) -> UserReward:
        return UserReward(
            user_id=user_id,
            weights=stored.weights,
            covariance=stored.covariance,
            comparisons=stored.comparisons,
            revision=stored.revision,
            fingerprint=self._fingerprint,
        )

    def _base_rewards(self, items: Iterable[Item]) -> dict[bytes, NDArray[np.float32]]:
        """φ of items by key: from memory, else from the database, else encoded once."""
        wanted = {item.key: item for item in items}
        found: dict[bytes, NDArray[np.float32]] = {}
        with self._cache_lock:
            for key in wanted.keys() & self._cache.keys():
                self._cache.move_to_end(key)
                found[key] = self._cache[key]
        missing = [key for key in wanted if key not in found]
        if missing:
            found |= self._store.base_rewards(self._features, missing)
            new = [key for key in missing if key not in found]
            if new:
                with span("encode", items=len(new)):
                    computed = base_rewards(self._encoder, self._bundle, [wanted[key] for key in new])
                # Copies: a view would keep the whole batch alive for as long as one of its rows is cached.
                found |= zip(new, (row.copy() for row in computed), strict=True)
            with self._cache_lock:
                self._cache.update((key, found[key]) for key in missing)
                while len(self._cache) > self._settings.cache_items:
                    self._cache.popitem(last=False)
        return found


class _Items:
    """Makes the items of one chunk, checked; a response that comes again is not hashed again."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._made: dict[tuple[Prompt, str | int], tuple[str | Response, Item]] = {}

    def __call__(self, prompt: Prompt, response: str | Response) -> Item:
        key = prompt, response if isinstance(response, str) else id(response)
        made = self._made.get(key)
        if made is None:
            item = Item.of(prompt, response)
            check(self._encoder, item)
            # With the response, for as long as it lives its id is its own.
            made = self._made[key] = response, item
        return made[1]


def _event(given: Feedback, item_of: ItemOf) -> AnyEvent:
    if not isinstance(given, Feedback):
        raise InvalidInputError(f"A Comparison, Rating, Thumb or Ranking is wanted, not {type(given).__name__}.")
    return event_of(given, item_of)


def _usable(base_rewards: NDArray[np.float32]) -> bool:
    """Base rewards have unit variance over the training items: what is this far off comes from a broken encoder."""
    return bool((np.abs(base_rewards) <= _LARGEST).all())


def _textless(whose: str) -> BundleMismatchError:
    return BundleMismatchError(
        f"Some of {whose} feedback was stored without its text (store_text=False), by another bundle or encoder. "
        "Hand the same feedback in again through this client, with the same event ids (record_many): it counts as "
        "duplicates, and what this bundle makes of it is stored. Or use the bundle that it was recorded with."
    )


def _overflow() -> EmbeddingError:
    return EmbeddingError("An embedding's numbers are too large: its rewards overflow. Check the encoder's scale.")


def _after_fork() -> None:
    # Threads do not survive a fork: torch would wait for its pool for ever, and a lock may have been held by one.
    for engine in list(_engines):
        torch.set_num_threads(1)
        engine._cache_lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # absent on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
