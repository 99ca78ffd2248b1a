"""Encoders of a host's own, small enough for tests: real ones, with no model behind them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class CountingEncoder:
    """A real, if simple, encoder: 6 numbers drawn from a hash of the text. Keeps a list of what it encoded."""

    dimension = 6
    fingerprint = "counting"

    def __init__(self) -> None:
        self.encoded: list[tuple[str | None, str]] = []

    def encode(self, texts: Sequence[tuple[str | None, str]]) -> NDArray[np.float32]:
        self.encoded += texts
        seeds = (int.from_bytes(hashlib.sha256(repr(text).encode()).digest()[:8]) for text in texts)
        return np.array([np.random.default_rng(seed).standard_normal(6) for seed in seeds], np.float32)


class BrokenEncoder(CountingEncoder):
    """Returns what an encoder must not."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def encode(self, texts: Sequence[tuple[str | None, str]]) -> NDArray[np.float32]:
        return np.asarray(self.output, np.float32)


class Other(CountingEncoder):
    """The same dimension, other vectors."""

    fingerprint = "other"

    def encode(self, texts: Sequence[tuple[str | None, str]]) -> NDArray[np.float32]:
        return -super().encode(texts)
