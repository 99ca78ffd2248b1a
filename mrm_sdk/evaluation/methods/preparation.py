"""Prepares users for a baseline: checked input, scaled embeddings, folds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.data.contents import SUPPORT
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.errors import EmbeddingError, InvalidInputError, TrainingError
from mrm_sdk.evaluation.method import FittedMethod
from mrm_sdk.training.episodes import Packed, pack
from mrm_sdk.training.maml import query_losses

FOLDS = 5
# Most comparisons of a user and phase that are used, so that no user outweighs the others.
LIMIT = 64
SHOTS = (2, 10)


class PreparedUsers(NamedTuple):
    """Users to learn from.

    Args:
        users: their comparisons.
        fold: of each user, [users] int64 in [0, folds); settings are chosen on users of another fold.
        embeddings: of all items, [items, D] float64, centred and of mean squared norm 1.
    """

    users: Packed
    fold: Tensor
    embeddings: Tensor

    def split(self) -> tuple[PreparedUsers, Packed]:
        """Users to train on, and the held-out users of the first fold."""
        rest = self.fold > 0
        return PreparedUsers(self.users.users(rest), self.fold[rest] - 1, self.embeddings), self.users.users(~rest)


def prepare_users(dataset: Dataset, users: NDArray[np.int64], embeddings: Tensor, *, seed: int) -> PreparedUsers:
    """Checks and packs the users that a baseline is fitted to.

    Args:
        dataset: users' comparisons.
        users: indices of those to learn from.
        embeddings: of all items, [items, D].
        seed: of the folds, and of which comparisons of a user with very many are kept.

    Raises:
        InvalidInputError: ``users`` are not distinct users of the data set.
        EmbeddingError: the embeddings do not fit the items, or are not finite.
        TrainingError: fewer than two users have comparisons, or all items have the same embedding.
    """
    if len(np.unique(users)) < len(users) or not np.isin(users, np.arange(len(dataset.user_ids))).all():
        raise InvalidInputError("Users must be distinct indices into the data set's user_ids.")
    if embeddings.ndim != 2 or len(embeddings) != len(dataset.items):
        raise EmbeddingError(f"{len(dataset.items)} items need embeddings [items, D], not {list(embeddings.shape)}.")
    if not bool(torch.isfinite(embeddings).all()):
        raise EmbeddingError("Embeddings hold NaN or infinity. Check the encoder.")
    rng = np.random.default_rng(seed)
    packed = pack(dataset, users, limit=LIMIT, rng=rng)
    packed = packed.users((packed.strength > 0).flatten(1).any(1))
    count = len(packed.items)
    if count < 2:
        raise TrainingError(f"A baseline needs at least 2 users with comparisons, not {count}. Add users.")
    fold = torch.from_numpy(rng.permutation(count) % min(FOLDS, count))
    return PreparedUsers(packed, fold, _scaled(embeddings))


def _scaled(embeddings: Tensor) -> Tensor:
    centred = embeddings.double() - embeddings.double().mean(0)
    spread = float(centred.square().sum(1).mean().sqrt())
    if not spread > 1e-12 * max(1.0, float(embeddings.abs().max())):
        raise TrainingError("All items have the same embedding, so nothing can be learned. Check the encoder.")
    return centred / spread


@torch.no_grad()
def query_loss(fitted: FittedMethod, users: Packed) -> float:
    """Mean query loss of users in nats, after few shots and after all: settings are chosen by it."""
    support = users.pairs(SUPPORT, fitted.features)
    shots = sorted({min(n, support.strength.shape[1]) for n in (*SHOTS, LIMIT)})
    losses = [query_losses(users, fitted.features, fitted.adapt(support.first(n))).mean() for n in shots]
    return float(torch.stack(losses).mean())
