"""The directions in which embeddings differ, found in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.errors import TrainingError
from mrm_sdk.training.device import CPU

_ROWS_PER_CHUNK = 8192
_SAMPLE = 8192
_NOT_FINITE = "Embeddings hold NaN or infinity; check the encoder, or the precision they were kept in."
# Scaling up from less would overflow float32.
_LEAST_SPREAD = 1e-30


class Basis(NamedTuple):
    """Directions of the embeddings; an item is projected on them by ``(embedding − centre) @ projection``.

    Args:
        centre: [D] float64.
        projection: [D, R] float64.
    """

    centre: Tensor
    projection: Tensor

    def project(self, embeddings: NDArray[np.floating], device: torch.device = CPU) -> Tensor:
        """[items, D] (may be memory-mapped) -> [items, R] float32 on ``device``.

        Raises:
            TrainingError: an embedding is not finite.
        """
        projection, centre = self.projection.float().to(device), self.centre.float().to(device)
        out = torch.empty(len(embeddings), projection.shape[1], device=device)
        for start, rows in chunks(embeddings):
            part = (rows.to(device) - centre) @ projection
            if not bool(torch.isfinite(part).all()):
                raise TrainingError(_NOT_FINITE)
            out[start : start + len(rows)] = part
        return out


def chunks(embeddings: NDArray[np.floating]) -> Iterator[tuple[int, Tensor]]:
    """Yields ``(first row, rows as float32)``; of a memory-mapped array no more stays in memory than a chunk."""
    mapped = getattr(embeddings, "_mmap", None)
    for start in range(0, len(embeddings), _ROWS_PER_CHUNK):
        yield start, torch.from_numpy(np.array(embeddings[start : start + _ROWS_PER_CHUNK], np.float32))
        _release(mapped)


def gather(embeddings: NDArray[np.floating], rows: Tensor) -> Tensor:
    """Some rows as float32, [rows, D]; of a memory-mapped array nothing else is kept in memory."""
    out = torch.from_numpy(np.array(embeddings[rows.numpy()], np.float32))
    _release(getattr(embeddings, "_mmap", None))
    return out


def moments(embeddings: NDArray[np.floating]) -> tuple[Tensor, float]:
    """Mean [D] of embeddings [items, D], and the factor that gives them unit variance on average.

    Raises:
        TrainingError: the embeddings do not differ, or are not finite.
    """
    total, square = torch.zeros(embeddings.shape[1], dtype=torch.float64), 0.0
    for _, rows in chunks(embeddings):
        total += rows.double().sum(0)
    centre = total / len(embeddings)
    for _, rows in chunks(embeddings):
        square += float((rows.double() - centre).square().sum())
    spread = (square / (len(embeddings) * embeddings.shape[1])) ** 0.5
    _require_spread(spread, float(centre.abs().max()))
    return centre.float(), 1 / spread


def _require_spread(spread: float, size: float) -> None:
    if not np.isfinite(spread):
        raise TrainingError(_NOT_FINITE)
    if not spread > max(1e-6 * size, _LEAST_SPREAD):
        raise TrainingError("All items have the same embedding, so nothing can be learned. Check the encoder.")


def principal_basis(
    embeddings: NDArray[np.floating],
    rows: NDArray[np.int64],
    *,
    limit: int,
    rng: np.random.Generator,
) -> Basis:
    """The directions in which embeddings differ most, in the encoder's own scale.

    Args:
        embeddings: of all items, [items, D].
        rows: the items to use; a sample of them if there are very many.
        limit: R at most.
        rng: draws the sample.

    Returns:
        The basis; R is smaller than ``limit`` if embeddings differ in fewer directions.

    Raises:
        TrainingError: the embeddings do not differ, or are not finite.
    """
    if len(rows) > _SAMPLE:
        rows = np.sort(rng.choice(rows, _SAMPLE, replace=False))
    sample = torch.from_numpy(np.array(embeddings[rows], np.float32)).double()
    _release(getattr(embeddings, "_mmap", None))
    centre = sample.mean(0)
    centred = sample - centre
    scale = float(centred.pow(2).mean().sqrt())
    _require_spread(scale, float(sample.abs().max()))
    size = min(limit, *centred.shape)
    # Exact if that is cheap; else a random projection with power iterations, which finds the same leading directions.
    if min(centred.shape) <= 2 * limit + 512:
        _, spread, directions = torch.linalg.svd(centred / scale, full_matrices=False)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**31)))
            _, spread, turned = torch.svd_lowrank((centred / scale).float(), q=min(limit + 64, *centred.shape), niter=2)
        spread, directions = spread.double(), turned.T.double()
    rank = min(size, int((spread > 1e-4 * spread[0]).sum()))
    return Basis(centre, directions[:rank].T / scale)


def _release(mapped: object) -> None:
    """Returns pages that were read to the system: otherwise they count as this process's memory."""
    if mapped is not None and hasattr(mapped, "madvise"):
        import mmap

        mapped.madvise(mmap.MADV_DONTNEED)
