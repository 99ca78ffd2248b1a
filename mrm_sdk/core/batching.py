"""Comparisons of many users as one padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Pairs(NamedTuple):
    """Comparisons as the inner loop sees them, one user or a batch of users.

    Args:
        z: feature differences ``φ(chosen) − φ(rejected)``, [..., pairs, K].
        strength: how much each counts, [..., pairs]; 0 is padding.
        tie: 1 where both responses are as good, else 0, [..., pairs].
    """

    z: Tensor
    strength: Tensor
    tie: Tensor

    def first(self, shots: int) -> Pairs:
        """Returns the first ``shots`` comparisons of every user."""
        return Pairs(self.z[..., :shots, :], self.strength[..., :shots], self.tie[..., :shots])


def pad(users: Sequence[Pairs]) -> Pairs:
    """Stacks users of different lengths into one batch [users, longest, K]; padding has strength 0.

    Raises:
        ValueError: there is no user.
    """
    if not users:
        raise ValueError("a batch needs at least one user")
    return Pairs(
        *(torch.nn.utils.rnn.pad_sequence([user[field] for user in users], batch_first=True) for field in range(3))
    )
