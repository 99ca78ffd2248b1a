"""Users and texts that a fit does not see, and by which its settings are chosen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.data.datasets import Dataset
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.device import device_of
from mrm_sdk.training.episodes import Packed, pack
from mrm_sdk.training.new_texts import judged_on, text_folds

_HELD_OUT_SHARE = 0.15
_MOST_HELD_OUT = 1000


class Fold(NamedTuple):
    """One way to divide users.

    Args:
        learners: users to learn from.
        judged: all other users.
        new: items that a second fit does not see either, [items] bool.
        newcomers: the users of ``judged`` who have something to say about these, judged by that alone.
    """

    learners: Packed
    judged: Packed
    new: Tensor
    newcomers: Packed


def make_folds(dataset: Dataset, users: NDArray[np.int64], config: TrainingConfig) -> tuple[Packed, list[Fold]]:
    """Packs all users, ascending, and divides them.

    Args:
        dataset: users' comparisons.
        users: indices of those to learn from.
        config: number of folds, seed, device.
    """
    rng = np.random.default_rng(config.seed)
    shuffled = rng.permutation(users)
    positions = np.searchsorted(np.sort(shuffled), shuffled)
    # The comparisons that are kept of a user with many depend on the user alone, not on the fold.
    packed = pack(dataset, np.sort(shuffled), limit=config.max_pairs, rng=rng).to(device_of(config.device))
    held_out = _held_out(len(shuffled), config)
    texts = text_folds(dataset, np.flatnonzero(np.isin(dataset.user, users)), len(held_out), rng)
    folds = []
    for rows, held_back in zip(held_out, texts, strict=True):
        is_learner = torch.ones(len(shuffled), dtype=torch.bool)
        is_learner[torch.from_numpy(positions[rows])] = False
        new, judged = torch.from_numpy(held_back).to(packed.items.device), packed.users(~is_learner)
        folds.append(Fold(packed.users(is_learner), judged, new, judged_on(judged, new)))
    return packed, folds


def _held_out(count: int, config: TrainingConfig) -> list[NDArray[np.int64]]:
    """Positions of the users that are held out, fold by fold; all users take part if there are few."""
    if count >= config.large:
        return [np.arange(min(round(_HELD_OUT_SHARE * count), _MOST_HELD_OUT))]
    return np.array_split(np.arange(count), min(config.folds, count // 2))
