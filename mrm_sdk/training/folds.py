"""Users and texts that a fit does not see, and by which its settings are chosen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.data.datasets import Dataset
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.device import device_of
from mrm_sdk.training.episodes import Packed, pack
from mrm_sdk.training.new_texts import draws_of, judged_on, text_folds, text_groups, without

_HELD_OUT_SHARE = 0.15
_MOST_HELD_OUT = 1000


class Fold(NamedTuple):
    """One way to divide users.

    Args:
        learners: users to learn from.
        judged: all other users.
        new: items that a second fit does not see either, [items] bool.
        newcomers: the users of ``judged`` who have something to say about these, judged by that alone.
        others: more such items, held back in turn where a fit takes no time.
    """

    learners: Packed
    judged: Packed
    new: Tensor
    newcomers: Packed
    others: list[Tensor]

    def draws(self) -> Iterator[tuple[Packed, Packed]]:
        """Users to learn from, and users to judge, with each set of items held back."""
        for new in (self.new, *self.others):
            yield without(self.learners, new), judged_on(self.judged, new)


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
    groups = text_groups(dataset, np.flatnonzero(np.isin(dataset.user, users)))
    count = len(held_out)
    texts = [torch.from_numpy(new).to(packed.items.device)
             for new in text_folds(groups, max(count, draws_of(groups)), rng)]  # fmt: skip
    folds = []
    for number, rows in enumerate(held_out):
        is_learner = torch.ones(len(shuffled), dtype=torch.bool)
        is_learner[torch.from_numpy(positions[rows])] = False
        new, judged = texts[number], packed.users(~is_learner)
        folds.append(
            Fold(packed.users(is_learner), judged, new, judged_on(judged, new), texts[number + count :: count])
        )
    return packed, folds


def _held_out(count: int, config: TrainingConfig) -> list[NDArray[np.int64]]:
    """Positions of the users that are held out, fold by fold; all users take part if there are few."""
    if count >= config.large:
        return [np.arange(min(round(_HELD_OUT_SHARE * count), _MOST_HELD_OUT))]
    return np.array_split(np.arange(count), min(config.folds, count // 2))
