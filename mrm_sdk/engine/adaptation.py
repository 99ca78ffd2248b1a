"""A user's weights, kept in step with the user's feedback, and the scores that they give."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from mrm_sdk.bundle.encoder_spec import digest
from mrm_sdk.core.batching import Pairs
from mrm_sdk.engine.evidence import evidence_of
from mrm_sdk.engine.features import Featurizer
from mrm_sdk.errors import ContentionError, MrmError, TextRefusedError
from mrm_sdk.schemas.items import Item
from mrm_sdk.schemas.requests import numbered
from mrm_sdk.schemas.results import Counted, UserReward
from mrm_sdk.storage.events import NO_FEEDBACK, StoredWeights, UserFeedback
from mrm_sdk.tracing import span

_ATTEMPTS = 8


class Personalizer:
    """Adapts users on demand under one bundle; safe to share between threads.

    Args:
        featurizer: the bundle, the store, and the features of feedback.

    Attributes:
        fingerprint: weights are stored under it: the bundle's, unless encoder or half-life differ from the bundle's.
    """

    def __init__(self, featurizer: Featurizer) -> None:
        self.featurizer = featurizer
        self._bundle, self._store = featurizer.bundle, featurizer.store
        self.fingerprint = featurizer.fingerprint
        bundled, configured = self._bundle.manifest.adaptation.half_life, featurizer.settings.half_life
        self._half_life = bundled if configured is None else configured.total_seconds() or None
        if self._half_life != bundled:
            self.fingerprint = digest([self.fingerprint, {"half_life": self._half_life}])
        mean, covariance, counted = self._adapt(NO_FEEDBACK)
        self._prior = StoredWeights(mean, covariance, comparisons=0, feedback_version=0, revision=0, counted=counted)

    def personalize(self, user_id: str, refused: dict[bytes, str] | None = None) -> UserReward:
        """Returns a user's weights; adapts first if feedback is newer than the stored weights.

        Weights are stored only if the feedback did not change meanwhile. If other processes record faster than this
        one adapts, the last result is returned without being stored, and the next call tries again.

        Args:
            user_id: of the user.
            refused: as for :meth:`Featurizer.complete`, where several users may share a text.

        Raises:
            BundleMismatchError: feedback stored without its text has no features under this bundle.
            EncoderError: text could not be encoded.
            ContentionError: other processes keep forgetting and recording this user.
            DatabaseError: the database refused.
        """
        return self._reward(user_id, self._weights(user_id, refused))

    def personalize_many(self, user_ids: Collection[str]) -> dict[str, UserReward]:
        """What :meth:`personalize` returns for each of several users, whose stored weights are read by one statement.

        Those whose weights are stale are adapted one after another: where one raises, those before it stay adapted.
        """
        return {user_id: self._reward(user_id, weights) for user_id, weights in self._weights_of(user_ids).items()}

    def score(self, user_id: str, items: Sequence[Item]) -> NDArray[np.float32]:
        """Rewards of items for a user, [n] float32; adapts first if feedback is newer than the stored weights.

        Raises:
            EmbeddingError: an item's embedding does not fit, or its rewards overflow.
            EncoderError: the encoder failed.
            MrmError: see :meth:`personalize`.
        """
        weights = self._weights(user_id).weights
        for item in items:
            self.featurizer.check(item)
        refused: dict[bytes, str] = {}
        rewards = self.featurizer.base_rewards(items, refused)
        return self._scores(items, rewards, refused, weights)

    def score_many(self, requests: Mapping[int, tuple[str, Sequence[Item]]]) -> dict[int, NDArray[np.float32]]:
        """What :meth:`score` returns for each of several requests; all their new items are encoded in one call.

        Args:
            requests: user and items, by the number of the request, which errors name.

        Raises:
            EmbeddingError: an item's embedding does not fit, or its rewards overflow.
            EncoderError: the encoder failed.
            MrmError: see :meth:`personalize_many`.
        """
        for number, (_, items) in requests.items():
            with numbered("Request", number):
                for item in items:
                    self.featurizer.check(item)
        weights = self._weights_of(dict.fromkeys(user_id for user_id, _ in requests.values()))
        refused: dict[bytes, str] = {}
        rewards = self.featurizer.base_rewards((item for _, items in requests.values() for item in items), refused)
        scores = {}
        for number, (user_id, items) in requests.items():
            with numbered("Request", number):
                scores[number] = self._scores(items, rewards, refused, weights[user_id].weights)
        return scores

    def _weights_of(self, user_ids: Collection[str]) -> dict[str, StoredWeights]:
        stored = self._store.weights_of(user_ids, self.fingerprint)
        return {
            user_id: self._current(*stored.get(user_id, (0, None))) or self._weights(user_id) for user_id in user_ids
        }

    def _weights(self, user_id: str, refused: dict[bytes, str] | None = None) -> StoredWeights:
        weights, refused = None, {} if refused is None else refused
        for _ in range(_ATTEMPTS):
            version, stored = self._store.weights(user_id, self.fingerprint)
            if current := self._current(version, stored):
                return current
            feedback = self._store.feedback(user_id, self.featurizer.features_hash, dated=self._half_life is not None)
            completed = self.featurizer.complete(feedback, refused)
            if completed is None:
                continue
            with span("adapt", comparisons=len(completed.z), ratings=len(completed.ratings)):
                mean, covariance, counted = self._adapt(completed)
            revision = 1 if stored is None else stored.revision + 1
            judgements = len(completed.z) + len(completed.ratings)
            weights = StoredWeights(mean, covariance, judgements, feedback.feedback_version, revision, counted)
            if self._store.save_weights(user_id, self.fingerprint, weights):
                return weights
        if weights is None:
            raise ContentionError("Other processes keep forgetting and recording this user. Try again.")
        return replace(weights, revision=weights.revision - 1)

    def _current(self, version: int, stored: StoredWeights | None) -> StoredWeights | None:
        """The weights that serve a user whose feedback has this version: the prior's, or the stored ones."""
        if version == 0:
            return self._prior
        return stored if stored is not None and stored.feedback_version == version else None

    def _scores(
        self,
        items: Sequence[Item],
        rewards: Mapping[bytes, NDArray[np.float32]],
        refused: Mapping[bytes, str],
        weights: NDArray[np.float64],
    ) -> NDArray[np.float32]:
        for index, item in enumerate(items):
            if item.key in refused:
                raise TextRefusedError(f"responses[{index}] cannot be scored: {refused[item.key]}")
        matrix = np.array([rewards[item.key] for item in items], np.float64).reshape(len(items), len(weights))
        scores = (matrix @ weights).astype(np.float32)
        if not np.isfinite(scores).all():
            raise self.featurizer.overflow_error()
        return scores

    def _adapt(self, feedback: UserFeedback) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, Counted]:
        adaptation, width = self._bundle.manifest.adaptation, self._bundle.manifest.base_functions
        pairs, counted = evidence_of(
            feedback, width, half_life=self._half_life, published=adaptation.method == "gradient"
        )
        weights, covariance = self._bundle.adapt(Pairs(*(field.unsqueeze(0) for field in pairs)))
        if not bool(torch.isfinite(weights).all()):
            raise MrmError("Adaptation gave NaN or infinity; the stored weights stay. Check the embeddings' scale.")
        # What may stand behind the K weights is the user's threshold.
        of_weights = None if covariance is None else covariance[0, :width, :width].numpy()
        return weights[0, :width].numpy(), of_weights, counted

    def _reward(self, user_id: str, stored: StoredWeights) -> UserReward:
        return UserReward(
            user_id=user_id,
            weights=stored.weights,
            covariance=stored.covariance,
            comparisons=stored.comparisons,
            counted=stored.counted,
            revision=stored.revision,
            fingerprint=self.fingerprint,
        )
