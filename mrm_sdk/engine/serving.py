"""Which bundle serves which user, and many users in one call: few statements, and one call of the encoder."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.engine.adaptation import Personalizer
from mrm_sdk.engine.rebuild import can_serve, is_complete
from mrm_sdk.schemas.items import Item
from mrm_sdk.schemas.requests import AnyScoreRequest, numbered, scorable
from mrm_sdk.schemas.results import UserReward
from mrm_sdk.storage.store import batched


class Serving(NamedTuple):
    """The bundle in use, and the one before it, until the one in use has the features of all feedback.

    Args:
        current: serves whom it can.
        previous: serves all other users.
    """

    current: Personalizer
    previous: Personalizer | None = None

    def followed_by(self, personalizer: Personalizer) -> Serving:
        """The same after a switch to another bundle."""
        # A bundle that lacks features of old feedback itself cannot serve users meanwhile: the one before it can.
        is_waiting = self.previous is not None and not is_complete(self.current.featurizer)
        return Serving(personalizer, self.previous if is_waiting else self.current)

    def personalizer(self, user_id: str) -> Personalizer:
        """The one that serves a user."""
        return self.current if self.previous is None or can_serve(self.current, user_id) else self.previous

    def personalize_many(self, user_ids: Sequence[str]) -> dict[str, UserReward]:
        """Rewards of users, in their order; :meth:`Personalizer.personalize_many` for each bundle and chunk."""
        rewards: dict[str, UserReward] = {}
        for chunk in batched(user_ids, self._chunk_size):
            for personalizer, users in self._served(chunk):
                rewards |= personalizer.personalize_many(users)
        return {user_id: rewards[user_id] for user_id in user_ids}

    def score_many(self, requests: Iterable[AnyScoreRequest]) -> list[NDArray[np.float32]]:
        """Scores of requests, in their order; :meth:`Personalizer.score_many` for each bundle and chunk.

        Raises:
            InvalidInputError: a request is wrong; the message says which one.
        """
        scores: list[NDArray[np.float32]] = []
        for chunk in _in_chunks(requests, self._chunk_size):
            scored: dict[int, NDArray[np.float32]] = {}
            for personalizer, users in self._served(dict.fromkeys(user_id for user_id, _ in chunk.values())):
                theirs = set(users)
                scored |= personalizer.score_many({n: asked for n, asked in chunk.items() if asked[0] in theirs})
            scores += [scored[number] for number in chunk]
        return scores

    @property
    def _chunk_size(self) -> int:
        return self.current.featurizer.settings.chunk_size

    def _served(self, user_ids: Collection[str]) -> Iterator[tuple[Personalizer, Collection[str]]]:
        """Users by the bundle that serves them."""
        if self.previous is None:
            yield self.current, user_ids
            return
        able = {user_id: can_serve(self.current, user_id) for user_id in user_ids}
        for personalizer, is_able in ((self.current, True), (self.previous, False)):
            if users := [user_id for user_id in user_ids if able[user_id] is is_able]:
                yield personalizer, users


def _in_chunks(requests: Iterable[AnyScoreRequest], size: int) -> Iterator[dict[int, tuple[str, list[Item]]]]:
    """Requests by their number, in chunks of at least ``size`` responses, and of at most so many users."""
    chunk: dict[int, tuple[str, list[Item]]] = {}
    rows = 0
    for number, request in enumerate(requests):
        with numbered("Request", number):
            chunk[number] = scorable(request)
        rows += max(1, len(chunk[number][1]))
        if rows >= size:
            yield chunk
            chunk, rows = {}, 0
    if chunk:
        yield chunk
