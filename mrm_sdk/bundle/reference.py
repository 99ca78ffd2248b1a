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
        population: the best reward for all users alike, linear in the encoder's embedding, [D] float64.
        texts: the first 8 bytes of the SHA-256 of each text that training saw, ascending, [texts] int64. The texts
            themselves cannot be had from them; that a text was among them can be told, by who has that text.
    """

    population: Tensor | None
    texts: Tensor | None

    @classmethod
    def of(cls, population: Tensor | None, items: Iterable[Item]) -> Reference:
        """The reference of a training on these items."""
        return cls(population, torch.from_numpy(np.unique(_short_keys(items))))

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor]) -> Reference:
        """From a file's tensors."""
        population = tensors.get("population")
        return cls(None if population is None else population.double(), tensors.get("texts"))

    def tensors(self) -> dict[str, Tensor]:
        """For a file."""
        return {name: tensor.contiguous() for name, tensor in self._asdict().items() if tensor is not None}

    def knows(self, items: Iterable[Item]) -> NDArray[np.bool_] | None:
        """Whether training saw each of these items, [items]; ``None`` where the bundle does not say."""
        return None if self.texts is None else np.isin(_short_keys(items), self.texts.numpy())


def _short_keys(items: Iterable[Item]) -> NDArray[np.int64]:
    return np.frombuffer(b"".join(item.key[:8] for item in items), "<i8").astype(np.int64)
