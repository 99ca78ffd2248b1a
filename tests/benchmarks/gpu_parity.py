"""A part of ``gpu_check``: what the GPU's numbers differ by from the CPU's, and how many rankings that changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mrm_sdk.bundle import Bundle
from mrm_sdk.settings import Settings
from tests.benchmarks.gpu_place import Place, changed_orders, texts


def parity(place: Place) -> Iterator[dict[str, Any]]:
    """Base rewards of arrays and tensors, then pooled vectors and base rewards of texts, in every precision."""
    bundle = place.base_rewards()
    embeddings = np.random.default_rng(0).standard_normal((place.some(4096, 64), place.dimension)).astype(np.float32)
    exact = Bundle(bundle.path, Settings(providers="cpu")).base_rewards(embeddings)
    yield _row("base rewards, float32 array", bundle.base_rewards(embeddings), exact)
    if place.torch:
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            tensor = torch.from_numpy(embeddings).to(place.device, dtype)
            result = bundle.base_rewards(tensor)
            same = result.dtype == dtype and result.device == tensor.device
            row = _row(f"base rewards, {str(dtype).removeprefix('torch.')} tensor", result.float().cpu().numpy(), exact)
            yield {**row, "same_type_and_device": same}
        empty = bundle.base_rewards(torch.empty(0, place.dimension, device=place.device))
        yield {"what": "no rows at all", "same_type_and_device": list(empty.shape) == [0, exact.shape[1]]}
    sample = texts(place.some(1024, 24), 1, 120)
    first = place.precisions[0]
    on_cpu = place.encoder(first, providers="cpu")
    vectors, rewards = on_cpu.encode(sample), on_cpu.base_rewards(sample)
    for precision in place.precisions:
        encoder = place.encoder(precision)
        yield _row(f"pooled vectors, {precision}", encoder.encode(sample), vectors)
        yield _row(f"fused base rewards, {precision}", encoder.base_rewards(sample), rewards)


def _row(what: str, values: NDArray[np.floating], exact: NDArray[np.floating]) -> dict[str, Any]:
    return {
        "what": what,
        "largest_difference": float(np.abs(values - exact).max()),
        "their_deviation": float(exact.std()),
        "orders_changed": changed_orders(values, exact),
    }
