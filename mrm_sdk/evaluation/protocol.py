"""The experiment: users never trained on give some comparisons and are judged on others; imports bundle, training.

Each user is judged before adapting (0 shots), after adapting to the first n support comparisons, and, as a control,
with the weights of the next user: personalization is shown only where one's own weights do better than those.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.bundle.loading import Bundle
from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.losses import bradley_terry, weighted_mean
from mrm_sdk.encoders import Encoder
from mrm_sdk.errors import BundleMismatchError, ConfigurationError, DatasetError
from mrm_sdk.evaluation.metrics import accuracy, worst_share
from mrm_sdk.training.datasets import QUERY, SUPPORT, Dataset
from mrm_sdk.training.episodes import pack
from mrm_sdk.training.meta import Progress
from mrm_sdk.training.pipeline import embed_items

SHOTS = (0, 2, 5, 10, 20, 40, 60)
_CHUNK = 256


@dataclass(frozen=True)
class Point:
    """What was measured at one number of shots; accuracies are means per user, then over users.

    Args:
        shots: support comparisons that each user adapted to (or all, where a user has fewer).
        accuracy: with one's own weights.
        worst_tenth: of the tenth of users who fare worst.
        control: with another user's weights; ``None`` where there is only one user.
        loss: mean Bradley–Terry loss in nats.
    """

    shots: int
    accuracy: float
    worst_tenth: float
    control: float | None
    loss: float


@dataclass(frozen=True)
class Report:
    """The outcome of an evaluation.

    Args:
        points: one per number of shots, in order.
        user_ids: who was judged, [users].
        per_user: accuracy of each user at each number of shots, [shots, users].
        bundle: name and fingerprint.
        data: what the data set says of itself.
        seconds: without encoding: adapting and judging everybody at all shots.
    """

    points: list[Point]
    user_ids: list[str]
    per_user: NDArray[np.float64]
    bundle: dict[str, str]
    data: dict[str, Any]
    seconds: float

    def at(self, shots: int) -> Point:
        """The point measured at ``shots``."""
        return next(point for point in self.points if point.shots == shots)

    def as_json(self) -> dict[str, Any]:
        """Everything but the single users, for programs to read."""
        return {
            "bundle": self.bundle,
            "data": self.data,
            "users": len(self.user_ids),
            "seconds": round(self.seconds, 3),
            "results": [vars(point) for point in self.points],
        }


def evaluate(
    bundle: Bundle,
    dataset: Dataset,
    encoder: Encoder,
    *,
    shots: Sequence[int] = SHOTS,
    progress: Progress = lambda stage, done, total: None,
) -> Report:
    """Judges a bundle on the users of a data set.

    Args:
        bundle: what is judged.
        dataset: users who took no part in training.
        encoder: of the bundle.
        shots: how many support comparisons to adapt to; a user with fewer adapts to all of them.
        progress: called with stage, done, total.

    Returns:
        The report.

    Raises:
        ConfigurationError: a number of shots is negative, or none is given.
        BundleMismatchError: the data set's embeddings are not of the bundle's size.
        DatasetError: nobody has a decided comparison to be judged by.
    """
    shots = sorted(set(shots))
    if not shots or shots[0] < 0:
        raise ConfigurationError("Shots must be numbers of comparisons, 0 or more.")
    users = np.unique(dataset.user[(dataset.phase == QUERY) & ~dataset.tie])
    if not len(users):
        raise DatasetError("Nobody in this data set has a query comparison that is no tie: nothing to judge by.")
    own = dataset.items[0].embedding
    if own is not None and len(own) != encoder.dimension:
        raise BundleMismatchError(
            f"The data set's embeddings have {len(own)} numbers, the bundle's have {encoder.dimension}."
        )
    # Nobody can be adapted to more than there is: such numbers are reported as the most that anybody has given.
    most = int(np.bincount(dataset.user[dataset.phase == SUPPORT], minlength=1).max())
    shots = sorted({min(n, most) for n in shots})
    embeddings = embed_items(encoder, dataset, progress)
    base_rewards = torch.from_numpy(bundle.base_rewards(embeddings))

    began = time.perf_counter()
    # Users with like amounts of feedback share a chunk, so that little of it is padding.
    users = users[np.argsort(np.bincount(dataset.user, minlength=len(dataset.user_ids))[users], kind="stable")]
    chunks = [users[start : start + _CHUNK] for start in range(0, len(users), _CHUNK)]
    weights = torch.cat([_adapt(bundle, dataset, chunk, base_rewards, shots) for chunk in chunks], 1)
    controls = weights.roll(1, 1)
    own_accuracy, control_accuracy, losses = [], [], []
    for number, chunk in enumerate(chunks):
        query = _pairs(dataset, chunk, QUERY, base_rewards)
        rows = slice(number * _CHUNK, number * _CHUNK + len(chunk))
        own_accuracy.append(torch.stack([accuracy(query, w[rows]) for w in weights]))
        control_accuracy.append(torch.stack([accuracy(query, w[rows]) for w in controls]))
        losses.append(torch.stack([_loss(query, w[rows]) for w in weights]))
        progress("evaluating", rows.stop, len(users))
    per_user, control, loss = (torch.cat(part, 1) for part in (own_accuracy, control_accuracy, losses))
    return Report(
        points=[
            Point(
                shots=n,
                accuracy=float(per_user[i].mean()),
                worst_tenth=worst_share(per_user[i], 0.1),
                control=float(control[i].mean()) if len(users) > 1 else None,
                loss=float(loss[i].mean()),
            )
            for i, n in enumerate(shots)
        ],
        user_ids=[dataset.user_ids[user] for user in users],
        per_user=per_user.numpy(),
        bundle={"name": bundle.manifest.name, "fingerprint": bundle.fingerprint},
        data=dataset.describe(),
        seconds=time.perf_counter() - began,
    )


def _pairs(dataset: Dataset, users: NDArray[np.int64], phase: int, base_rewards: Tensor) -> Pairs:
    z, strength, tie = pack(dataset, users).pairs(phase, base_rewards)
    # Differences are taken in float32, as the store keeps them; what follows is in double precision, as serving is.
    return Pairs(z.double(), strength.double(), tie.double())


def _adapt(
    bundle: Bundle, dataset: Dataset, users: NDArray[np.int64], base_rewards: Tensor, shots: Sequence[int]
) -> Tensor:
    """Weights of users at each number of shots, [shots, users, K]."""
    support = _pairs(dataset, users, SUPPORT, base_rewards)
    return torch.stack([bundle.adapt(support.first(n))[0] for n in shots])


def _loss(query: Pairs, weights: Tensor) -> Tensor:
    margin = (query.z @ weights.unsqueeze(-1)).squeeze(-1)
    return weighted_mean(bradley_terry(margin, query.tie), query.strength)
