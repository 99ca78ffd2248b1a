"""Observe, adapt, score: the only place where storage, bundle and core meet.

Feature differences are computed once, when feedback arrives, and stored beside it. Adaptation afterwards touches
neither text nor encoder: a user with N comparisons is an N×K matrix.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from mrm_sdk.bundle.loading import Bundle
from mrm_sdk.core.batching import Pairs
from mrm_sdk.encoders.base import Encoder, check_dimension, embed
from mrm_sdk.errors import EmbeddingError, InvalidInputError, MrmError
from mrm_sdk.schemas import Comparison, Item, UserReward
from mrm_sdk.settings import Settings
from mrm_sdk.storage.records import Event, Outcome, StoredWeights, UserFeedback
from mrm_sdk.storage.store import Store

_RETRIES = 8


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
        self._cache: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._cache_lock = threading.Lock()
        self._prior_weights, self._prior_covariance = self._adapt([], [], [])

    def observe(self, comparisons: Iterable[Comparison]) -> Iterator[tuple[int, Outcome]]:
        """Stores comparisons, a chunk per transaction, and yields each one's index and outcome once it is durable.

        Raises:
            EncoderError: the encoder failed; everything yielded before stays stored.
            DatabaseError: the database refused; likewise.
        """
        numbered = enumerate(comparisons)
        while chunk := list(islice(numbered, self._settings.chunk_size)):
            refused: list[tuple[int, Outcome]] = []
            events: list[tuple[int, Event]] = []
            for index, comparison in chunk:
                try:
                    events.append((index, self._event(comparison)))
                except InvalidInputError as error:
                    refused.append((index, Outcome(False, error)))
            keep, events = events, []
            features = self._base_rewards([item for _, e in keep for item in (e.chosen, e.rejected)])
            for index, event in keep:
                z = features[event.chosen.key] - features[event.rejected.key]
                if np.isfinite(z).all():
                    events.append((index, Event(event.comparison, event.chosen, event.rejected, z)))
                else:
                    refused.append((index, Outcome(False, _overflow())))
            outcomes = self._store.add(
                [event for _, event in events], features=self._bundle.features, base_rewards=features
            )
            yield from sorted([*refused, *zip((index for index, _ in events), outcomes, strict=True)])

    def personalize(self, user_id: str) -> UserReward:
        """Returns a user's weights, adapted first where feedback is newer than they are.

        Weights are stored only while the feedback that they have seen is still all there is. Where others record
        faster than this, what was computed last is returned and left for the next call to store.
        """
        for _ in range(_RETRIES):
            given, stored = self._store.weights(user_id, self._bundle.fingerprint)
            if given == 0:
                return self._reward(user_id, StoredWeights(self._prior_weights, self._prior_covariance, 0, 0, 0))
            if stored is not None and stored.feedback == given:
                return self._reward(user_id, stored)
            feedback = self._store.feedback(user_id, self._bundle.features)
            z = self._complete(feedback)
            if z is None:
                continue
            weights, covariance = self._adapt(z, feedback.strength, feedback.tie)
            revision = 1 if stored is None else stored.revision + 1
            new = StoredWeights(weights, covariance, len(feedback.event_ids), feedback.feedback, revision)
            if self._store.save_weights(user_id, self._bundle.fingerprint, new):
                return self._reward(user_id, new)
        return self._reward(user_id, replace(new, revision=new.revision - 1))

    def score(self, user_id: str, items: Sequence[Item]) -> NDArray[np.float32]:
        """Rewards of items for a user, [n] float32; adapts first where feedback is newer than the weights.

        Raises:
            EmbeddingError: an item's embedding does not fit.
            EncoderError: the encoder failed.
        """
        weights = self.personalize(user_id).weights
        for item in items:
            _check(item, self._encoder)
        features = self._base_rewards(items)
        rewards = np.array([features[item.key] for item in items], np.float64).reshape(len(items), len(weights))
        scores = (rewards @ weights).astype(np.float32)
        if not np.isfinite(scores).all():
            raise _overflow()
        return scores

    def _event(self, comparison: Comparison) -> Event:
        if not isinstance(comparison, Comparison):
            raise InvalidInputError(f"A Comparison is wanted, not {type(comparison).__name__}.")
        chosen, rejected = (Item.of(comparison.prompt, side) for side in (comparison.chosen, comparison.rejected))
        _check(chosen, self._encoder)
        _check(rejected, self._encoder)
        return Event(comparison, chosen, rejected)

    def _complete(self, feedback: UserFeedback) -> list[NDArray[np.float32]] | None:
        """``z`` of all comparisons; those never computed under this bundle's features are, and are stored.

        Returns:
            ``None`` where the user was forgotten in this very moment.
        """
        missing = [row for row, z in enumerate(feedback.z) if z is None]
        z = list(feedback.z)
        if missing:
            keys = {key for row in missing for key in feedback.items[row]}
            items = self._store.items(keys)
            if len(items) < len(keys):
                return None
            features = self._base_rewards(list(items.values()))
            for row in missing:
                chosen, rejected = feedback.items[row]
                z[row] = difference = features[chosen] - features[rejected]
                if not np.isfinite(difference).all():
                    raise _overflow()
            new = {feedback.event_ids[row]: value for row in missing if (value := z[row]) is not None}
            self._store.add_features(self._bundle.features, new, features)
        return [value for value in z if value is not None]

    def _adapt(
        self, z: Sequence[NDArray[np.float32]], strength: Sequence[float], tie: Sequence[bool]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        size = self._bundle.manifest.base_functions
        pairs = Pairs(
            torch.from_numpy(np.array(z, np.float64).reshape(1, len(z), size)),
            torch.tensor(strength, dtype=torch.float64).unsqueeze(0),
            torch.tensor(tie, dtype=torch.float64).unsqueeze(0),
        )
        weights, covariance = self._bundle.adapt(pairs)
        if not bool(torch.isfinite(weights).all()):
            raise MrmError("Adaptation gave NaN or infinity; the stored weights stay. Check the embeddings' scale.")
        return weights[0].numpy(), None if covariance is None else covariance[0].numpy()

    def _reward(self, user_id: str, stored: StoredWeights) -> UserReward:
        return UserReward(
            user_id=user_id,
            weights=stored.weights,
            covariance=stored.covariance,
            comparisons=stored.comparisons,
            revision=stored.revision,
            fingerprint=self._bundle.fingerprint,
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
            found |= self._store.base_rewards(self._bundle.features, missing)
            new = [key for key in missing if key not in found]
            if new:
                computed = self._bundle.base_rewards(embed(self._encoder, [wanted[key] for key in new]))
                found |= zip(new, computed, strict=True)
            with self._cache_lock:
                self._cache.update((key, found[key]) for key in missing)
                while len(self._cache) > self._settings.cache_items:
                    self._cache.popitem(last=False)
        return found


def _check(item: Item, encoder: Encoder) -> None:
    if item.embedding is not None:
        check_dimension(item.embedding, encoder.dimension)


def _overflow() -> EmbeddingError:
    return EmbeddingError("An embedding's numbers are too large: its rewards overflow. Check the encoder's scale.")
