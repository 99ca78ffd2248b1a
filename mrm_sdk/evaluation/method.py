"""What every method comes to once it is fitted, ours and the baselines alike; imports core and torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from mrm_sdk.core.batching import Pairs


class Fitted(NamedTuple):
    """A method that scores an item by ``weights · features``; users differ in their weights alone.

    Args:
        features: of all items, [items, F] float64.
        adapt: support comparisons of a batch of users, [users, pairs, F] float64 -> weights [users, F] float64; with no
            support at all (every strength 0) it gives what is assumed of an unknown user.
    """

    features: Tensor
    adapt: Callable[[Pairs], Tensor]
