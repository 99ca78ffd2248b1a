"""Parts of ``gpu_check``: memory over thousands of calls of varied shapes, and batches that are too large for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from tests.benchmarks.gpu_base_rewards import _smi
from tests.benchmarks.gpu_place import Place, texts
from tests.benchmarks.watched import resident

_CALLS, _SECONDS = 10_000, 60.0
_LIMIT = 2**30


def varied(place: Place) -> Iterator[dict[str, Any]]:
    """Requests of 1 to 64 texts of 1 to 200 words: memory of the GPU and of the host before, on the way and after."""
    encoder, rng = place.encoder(place.precisions[0]), np.random.default_rng(0)
    sample = texts(2000, 1, 200)
    calls = place.some(_CALLS, 40)
    encoder.base_rewards(sample[:64])
    yield {"what": "before", **_memory(place)}
    began = time.perf_counter()
    for number in range(1, calls + 1):
        start = int(rng.integers(0, len(sample) - 64))
        encoder.base_rewards(sample[start : start + int(rng.integers(1, place.some(65, 5)))])
        late = time.perf_counter() - began > _SECONDS
        if number % max(1, calls // 10) == 0 or late:
            yield {"what": f"{number:,} calls", **_memory(place)}
        if late:
            return


def _memory(place: Place) -> dict[str, Any]:
    host = resident("self", "VmRSS") / 2**20
    if place.device.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        return {"gpu_MiB": (total - free) / 2**20, "host_MiB": host}
    used = _smi("memory.used")
    return {"gpu_MiB": float(used) if used else None, "host_MiB": host}


def limited(place: Place) -> Iterator[dict[str, Any]]:
    """A batch of 4,096 long texts in 1 GiB of GPU memory: is run in halves, says so, and comes to the same."""
    sample = texts(place.some(4096, 12), 150, 200)
    expected = place.encoder(place.precisions[0]).base_rewards(sample)
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("mrm_sdk").addHandler(handler)
    tight = place.encoder(place.precisions[0], gpu_mem_limit=_LIMIT, encode_tokens=4_194_304)
    began = time.perf_counter()
    limited_rewards = tight.base_rewards(sample)
    yield {
        "what": f"{len(sample):,} long texts at once, limit 1 GiB",
        "seconds": time.perf_counter() - began,
        "halved": any("run in halves" in message for message in said),
        "largest_difference": float(np.abs(limited_rewards - expected).max()),
    }
    again = tight.base_rewards(sample[:8])
    yield {"what": "and after it", "largest_difference": float(np.abs(again - expected[:8]).max())}
