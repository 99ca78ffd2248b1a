"""Which texts share a run of the encoder: those of like length, as many as a budget of tokens holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[NDArray[np.intp]]:
    """Yields rows in batches whose padded size, rows times the longest, is at most ``budget``; one row at least.

    Sorted by length, a batch holds little padding. The longest come first, so that memory runs out at once or never,
    and so that the threads which share batches end with short ones.

    Args:
        lengths: tokens of each row, [n].
        budget: tokens, padding included.
    """
    order = np.argsort(np.asarray(lengths, np.int64), kind="stable")[::-1]
    start = 0
    while start < len(order):
        rows = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + rows]
        start += rows
