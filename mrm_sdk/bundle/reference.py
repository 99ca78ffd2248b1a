"""What a bundle brings along to be judged by: one reward for all, and which texts its fit has seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.schemas.items import Item


class Reference(NamedTuple):
    """Tensors beside the prior, which only evaluations read; bundles of earlier versions have none.

    Args:
        known: the best reward for all users alike over texts that training saw, linear in the encoder's embedding, [D]
            float64.
        new: the same over other texts.
        texts: the first 8 bytes of the SHA-256 of each text that training saw, ascending, [texts] int64. The texts
            themselves cannot be had from them; that a text was among them can be told, by who has that text.
    """

    known: Tensor | None = None
    new: Tensor | None = None
    texts: Tensor | None = None

    @classmethod
    def of(cls, population: tuple[Tensor, Tensor] | None, items: Iterable[Item]) -> Reference:
        """The reference of a training on these items."""
        known, new = population or (None, None)
        return cls(known, new, torch.from_numpy(np.unique(_short_keys(items))))

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor]) -> Reference:
        """From a file's tensors."""
        return cls(*(tensors.get(f"reference.{name}") for name in cls._fields))

    def tensors(self) -> dict[str, Tensor]:
        """For a file."""
        named = self._asdict().items()
        return {f"reference.{name}": tensor.contiguous() for name, tensor in named if tensor is not None}

    def knows(self, items: Iterable[Item]) -> NDArray[np.bool_] | None:
        """Whether training saw each of these items, [items]; ``None`` where the bundle does not say."""
        return None if self.texts is None else np.isin(_short_keys(items), self.texts.numpy())


def _short_keys(items: Iterable[Item]) -> NDArray[np.int64]:
    return np.frombuffer(b"".join(item.key[:8] for item in items), "<i8").astype(np.int64)
