"""Users as episodes: a support set that adapts and a query set that judges."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.redundancy import independent_share
from mrm_sdk.data.datasets import Dataset


class Packed(NamedTuple):
    """Comparisons of some users as a padded table; the second axis is support, then query.

    Args:
        items: indices of the chosen and the rejected item, [users, 2, pairs, 2] int64.
        strength: [users, 2, pairs]; 0 is padding.
        tie: 1 for a tie, [users, 2, pairs].
    """

    items: Tensor
    strength: Tensor
    tie: Tensor

    def pairs(self, phase: int, base_rewards: Tensor) -> Pairs:
        """The comparisons of one phase, with ``z`` looked up in base rewards [items, K]."""
        # Not base_rewards[items]: the gradient of that adds up in an order that changes from run to run.
        chosen, rejected = torch.nn.functional.embedding(self.items[:, phase], base_rewards).unbind(-2)
        z = chosen - rejected
        return Pairs(z, self.strength[:, phase].to(z), self.tie[:, phase].to(z))

    def independent(self, shots: int | None = None) -> Packed:
        """The same, where comparisons of a user and phase that repeat each other count less.

        Args:
            shots: comparisons of each phase to keep, the first ones; all by default.
        """
        items, strength = self.items[:, :, :shots], self.strength[:, :, :shots].clone()
        real = strength > 0
        user, phase, _ = torch.nonzero(real, as_tuple=True)
        offset = (user * 2 + phase) * (int(items.max()) + 1 if items.numel() else 0)
        chosen, rejected = (items[real] + offset.unsqueeze(1)).cpu().numpy().T
        share = independent_share(chosen, rejected, strength[real].double().cpu().numpy())
        strength[real] *= torch.from_numpy(share).to(strength)
        return Packed(items, strength, self.tie[:, :, :shots])

    def local(self) -> tuple[Packed, Tensor]:
        """The same comparisons with items renumbered from 0, and which items those are, [used] int64."""
        used, index = torch.unique(self.items, return_inverse=True)
        return self._replace(items=index), used

    def users(self, index: Tensor) -> Packed:
        """Some of the users."""
        return Packed(*(field[index.to(field.device)] for field in self))

    def to(self, device: torch.device) -> Packed:
        """The same on another device."""
        return Packed(*(field.to(device) for field in self))


def pack(
    dataset: Dataset, users: NDArray[np.int64], *, limit: int | None = None, rng: np.random.Generator | None = None
) -> Packed:
    """Lays the comparisons of ``users`` out as a table, with no loop over users.

    Args:
        dataset: where they are.
        users: indices into ``dataset.user_ids``, [m].
        limit: most comparisons per user and phase, so that one giant user does not set the width for all.
        rng: with it, comparisons are drawn at random and shuffled; without, the first ones are taken, in order.
    """
    packed_row = np.full(len(dataset.user_ids), -1)
    packed_row[users] = np.arange(len(users))
    rows = np.flatnonzero(packed_row[dataset.user] >= 0)
    group = packed_row[dataset.user[rows]] * 2 + dataset.phase[rows]
    order = np.lexsort((rows if rng is None else rng.random(len(rows)), group))
    rows, group = rows[order], group[order]
    rank = np.arange(len(rows)) - np.searchsorted(group, group)
    width = max(1, int(rank.max(initial=0)) + 1)
    if limit is not None and width > limit:
        width = limit
        rows, group, rank = (column[rank < limit] for column in (rows, group, rank))
    shape = (len(users), 2, width)
    at = (group // 2, group % 2, rank)
    items = np.zeros((*shape, 2), np.int64)
    items[(*at, 0)], items[(*at, 1)] = dataset.chosen[rows], dataset.rejected[rows]
    strength, tie = np.zeros(shape), np.zeros(shape)
    strength[at], tie[at] = dataset.strength[rows], dataset.tie[rows]
    return Packed(torch.from_numpy(items), torch.from_numpy(strength), torch.from_numpy(tie))


def draw(packed: Packed, users: int, generator: torch.Generator, *, random_shots: bool = True) -> Packed:
    """Draws a meta-batch: users, the roles of their halves, and how many shots, all at random.

    One bundle then serves users with two comparisons as well as those with all of them.

    Args:
        packed: all users for training.
        users: how many to draw, without replacement.
        generator: the only source of randomness.
        random_shots: let halves swap roles, and cut the support of the whole batch to the same random number of shots;
            without, only the users are drawn, as published.
    """
    batch = packed.users(torch.randperm(len(packed.items), generator=generator)[:users])
    if not random_shots:
        return batch
    size = len(batch.items)
    # Halves swap roles at random, except where the swapped query would be empty.
    swap = torch.rand(size, generator=generator) < 0.5
    swap &= (batch.strength[:, 0] > 0).any(-1)
    swap |= ~(batch.strength[:, 1] > 0).any(-1)
    order = torch.stack([swap.long(), 1 - swap.long()], -1)
    batch = Packed(*(field[torch.arange(size).unsqueeze(-1), order] for field in batch))
    width = batch.strength.shape[-1]
    shots = int(torch.randint(0, width + 1, (), generator=generator))
    keys = torch.rand(size, width, generator=generator)
    keys = torch.where(batch.strength[:, 0] > 0, keys, 2.0)  # padding sorts last
    chosen = torch.zeros(size, width, dtype=torch.bool).scatter(1, keys.argsort(1)[:, :shots], True)
    strength = batch.strength.clone()
    strength[:, 0] *= chosen
    return batch._replace(strength=strength)
