"""Base rewards of items and feature differences of comparisons: cached, stored, or computed once."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from mrm_sdk.bundle.bundle import Bundle
from mrm_sdk.bundle.encoder_spec import digest
from mrm_sdk.encoders import Encoder, base_rewards, check
from mrm_sdk.errors import BundleMismatchError, EmbeddingError, EncoderError, TextRefusedError
from mrm_sdk.schemas.items import Item
from mrm_sdk.settings import Settings
from mrm_sdk.storage.events import UserFeedback
from mrm_sdk.storage.store import Store
from mrm_sdk.tracing import span

logger = logging.getLogger("mrm_sdk")

_LARGEST_REWARD = 1e6
_featurizers: weakref.WeakSet[Featurizer] = weakref.WeakSet()


class Featurizer:
    """Turns items into base rewards φ under one bundle and one encoder; safe to share between threads.

    Args:
        store: the tables of one tenant, which keep what was computed.
        bundle: base reward functions.
        encoder: turns text into embeddings of the bundle's dimension.
        settings: cache and chunk sizes.

    Attributes:
        features_hash: identifies encoder and base rewards; vectors are stored under it and never mixed with others.
        fingerprint: identifies bundle and encoder.
    """

    def __init__(self, store: Store, bundle: Bundle, encoder: Encoder, settings: Settings) -> None:
        self.store, self.bundle, self.settings = store, bundle, settings
        self._encoder = encoder
        self.features_hash, self.fingerprint = bundle.features_hash, bundle.fingerprint
        if encoder.fingerprint != bundle.manifest.encoder.fingerprint:  # a host's own: its vectors are kept apart
            self.features_hash = digest([bundle.features_hash, encoder.fingerprint])
            self.fingerprint = digest([bundle.fingerprint, encoder.fingerprint])
        self._cache: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._cache_lock = threading.Lock()
        _featurizers.add(self)

    def check(self, item: Item) -> None:
        """Raises the error that encoding ``item`` would raise, as far as it shows without encoding.

        Raises:
            EmbeddingError: its embedding does not fit the bundle.
            EncoderError: the encoder cannot take its text.
        """
        check(self._encoder, item)

    def warm_up(self) -> None:
        """Encodes one short text, so that the encoder is loaded; nothing is stored.

        Raises:
            EncoderError: the encoder failed.
        """
        if getattr(self._encoder, "takes_text", True):
            refused: dict[bytes, str] = {}
            self._encode([Item.of(None, "warm up")], refused)
            for reason in refused.values():
                raise TextRefusedError(reason)

    def base_rewards(self, items: Iterable[Item], refused: dict[bytes, str]) -> dict[bytes, NDArray[np.float32]]:
        """φ of items, [K] float32 by item key: from memory, else from the database, else encoded once.

        Args:
            items: any number.
            refused: gets, by item key, why the encoder does not take a text; other items do not suffer.

        Raises:
            EncoderError: the encoder failed.
            DatabaseError: the database refused.
        """
        wanted = {item.key: item for item in items}
        rewards: dict[bytes, NDArray[np.float32]] = {}
        with self._cache_lock:
            for key in wanted.keys() & self._cache.keys():
                self._cache.move_to_end(key)
                rewards[key] = self._cache[key]
        missing = [key for key in wanted if key not in rewards]
        if missing:
            rewards |= self.store.base_rewards(self.features_hash, missing)
            # Copies: a view would keep the whole batch alive for as long as one of its rows is cached.
            computed = self._encode([wanted[key] for key in missing if key not in rewards], refused)
            rewards |= {key: row.copy() for key, row in computed.items()}
            with self._cache_lock:
                self._cache.update((key, rewards[key]) for key in missing if key in rewards)
                while len(self._cache) > self.settings.cache_items:
                    self._cache.popitem(last=False)
        return rewards

    def store_base_rewards(self, items: Collection[Item], refused: dict[bytes, str]) -> int:
        """Encodes items and stores their base rewards; items that this bundle cannot take are left out.

        Args:
            items: any number.
            refused: as for :meth:`base_rewards`.

        Returns:
            How many items have base rewards now.

        Raises:
            EncoderError: the encoder failed.
            DatabaseError: the database refused.
        """
        computed = self._encode([item for item in items if self._accepts(item)], refused)
        usable = {key: row for key, row in computed.items() if self.is_usable(row)}
        self.store.add_features(self.features_hash, {}, usable)
        return len(usable)

    def complete(self, feedback: UserFeedback, refused: dict[bytes, str]) -> UserFeedback | None:
        """The same feedback with all its features; missing ones are computed and stored.

        An event that this bundle cannot take (an embedding of another size, recorded without a bundle; a text that the
        encoder refuses) is left out with a warning: it must not cost the user all other feedback.

        Args:
            feedback: of one user.
            refused: by item key, why the encoder does not take a text; such texts are not tried again, and more are
                added.

        Returns:
            ``None`` if the user was forgotten meanwhile.

        Raises:
            BundleMismatchError: features are missing, and the text to compute them from was not kept.
            EncoderError: the encoder failed.
            DatabaseError: the database refused.
        """
        missing = {key for pair, z in zip(feedback.items, feedback.z, strict=True) if z is None for key in pair}
        missing |= {rating.item for rating in feedback.ratings if rating.base_rewards is None}
        if not missing:
            return feedback
        rewards = self.store.base_rewards(self.features_hash, missing)
        missing -= rewards.keys()
        items = self.store.items(missing)
        if len(items) < len(missing):
            return None
        if any(item.text is None and item.embedding is None for item in items.values()):
            raise textless_error("this user's")
        tried = [item for key, item in items.items() if key not in refused and self._accepts(item)]
        rewards |= self.base_rewards(tried, refused)
        usable = {key: vector for key, vector in rewards.items() if self.is_usable(vector)}
        z, ratings, new_z = list(feedback.z), list(feedback.ratings), {}
        for row, (chosen, rejected) in enumerate(feedback.items):
            if z[row] is None and chosen in usable and rejected in usable:
                z[row] = new_z[feedback.event_ids[row]] = usable[chosen] - usable[rejected]
        for row, rating in enumerate(ratings):
            if rating.base_rewards is None and rating.item in usable:
                ratings[row] = rating._replace(base_rewards=usable[rating.item])
        self.store.add_features(self.features_hash, new_z, usable)
        completed = replace(feedback, z=z, ratings=ratings)
        for event_id, keys in completed.unencoded.items():
            reasons = [refused[key] for key in keys if key in refused]
            logger.warning("event %s is left out: %s", event_id, *reasons[:1] or ["it does not fit the bundle"])
        return completed.encoded()

    @staticmethod
    def is_usable(base_rewards: NDArray[np.float32]) -> bool:
        """Whether base rewards [K] are finite and of a sane size: over the training items they have unit variance."""
        return bool((np.abs(base_rewards) <= _LARGEST_REWARD).all())

    @staticmethod
    def overflow_error() -> EmbeddingError:
        """The error of an embedding whose rewards are not usable."""
        return EmbeddingError("An embedding's numbers are too large: its rewards overflow. Check the encoder's scale.")

    def _encode(self, items: Sequence[Item], refused: dict[bytes, str]) -> dict[bytes, NDArray[np.float32]]:
        if not items:
            return {}
        reasons: dict[int, str] = {}
        with span("encode", items=len(items)):
            rows = base_rewards(self._encoder, self.bundle, items, reasons)
        refused.update((items[i].key, reason) for i, reason in reasons.items())
        return {item.key: row for i, (item, row) in enumerate(zip(items, rows, strict=True)) if i not in reasons}

    def _accepts(self, item: Item) -> bool:
        try:
            self.check(item)
        except (EmbeddingError, EncoderError):
            return False
        return True


def textless_error(whose: str) -> BundleMismatchError:
    """The error of feedback whose features are missing and whose text was not kept."""
    return BundleMismatchError(
        f"Some of {whose} feedback was stored without its text (store_text=False), by another bundle or encoder. "
        "Record the same feedback again through this client, with the same event ids (record_many): it counts as "
        "duplicates, and its features under this bundle are stored. Or use the bundle that it was recorded with."
    )


def _after_fork() -> None:
    # Threads do not survive a fork: torch would wait for its pool for ever, and one of them may have held a lock.
    for featurizer in list(_featurizers):
        torch.set_num_threads(1)
        featurizer._cache_lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # absent on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
