"""Parts of ``gpu_check``: versions, what happens where CUDA does not start, and base rewards for embeddings given."""

from __future__ import annotations

import logging
import platform
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from mrm_sdk.bundle.bundle import EMBEDDING, REWARDS
from mrm_sdk.bundle.manifest import BASE_REWARDS
from mrm_sdk.errors import ProviderError
from mrm_sdk.runtime.accelerators import survey
from mrm_sdk.runtime.session import GraphSession
from mrm_sdk.settings import Settings
from tests.benchmarks.gpu_place import Place, head

_PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "onnx", "transformers", "tokenizers", "numpy", "pydantic")
_SHARE = 0.6


def versions(place: Place) -> Iterator[dict[str, Any]]:
    """Of packages, GPU and driver; and which providers are listed, and which really start."""
    yield {"what": "python", "is": f"{platform.python_version()} on {platform.machine()}"}
    for name in _PACKAGES:
        try:
            yield {"what": name, "is": version(name)}
        except PackageNotFoundError:
            yield {"what": name, "is": "not installed"}
    yield {"what": "torch's CUDA", "is": torch.version.cuda or "none"}
    if place.device.type == "cuda":
        yield {"what": "GPU", "is": torch.cuda.get_device_name(0)}
        yield {"what": "GPU memory", "is": f"{torch.cuda.mem_get_info()[1] / 2**30:.1f} GiB"}
    yield {"what": "driver", "is": _smi("driver_version") or "unknown"}
    surveyed = survey(Settings(), timeout=30)
    yield {"what": "ONNX Runtime's CUDA", "is": surveyed.cuda or "none"}
    for trial in surveyed.trials:
        yield {"what": trial.provider, "is": "starts" if trial.started else f"does not start: {trial.why}"}
    if surveyed.error:
        yield {"what": "ONNX Runtime", "is": surveyed.error}


def _smi(field: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.splitlines()[0].strip() if done.stdout else ""


def fallback(place: Place) -> Iterator[dict[str, Any]]:
    """A GPU that is not there: the CPU with one warning; under ``strict_providers`` an error."""
    graph = place.base_rewards().read(BASE_REWARDS)
    embeddings = np.random.default_rng(0).standard_normal((8, place.dimension)).astype(np.float32)
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("mrm_sdk").addHandler(handler)

    def session(*, strict: bool) -> GraphSession:
        asked = Settings(providers="cuda", device_id=99, strict_providers=strict)
        return GraphSession(BASE_REWARDS, lambda: graph, frozenset([EMBEDDING]), frozenset([REWARDS]), asked)

    for _ in range(2):
        lenient = session(strict=False)
        result = lenient.run({EMBEDDING: embeddings}, REWARDS)
    exact = head(place.dimension)(torch.from_numpy(embeddings)).detach().numpy()
    yield {"what": "falls back", "is": lenient.providers[0], "warnings": len(said), "said": said[0] if said else ""}
    yield {"what": "and is right", "is": bool(np.allclose(result, exact, atol=1e-4))}
    try:
        _ = session(strict=True).providers
    except ProviderError as error:
        yield {"what": "strict", "is": "ProviderError", "said": str(error)}
    else:
        yield {"what": "strict", "is": "no error: WRONG"}


def copy_bandwidth(place: Place) -> float:
    """Bytes per second that a copy on the device reads and writes."""
    source = torch.ones(place.some(2**31, 2**22), dtype=torch.uint8, device=place.device)
    target = torch.empty_like(source)
    return 2 * source.numel() / place.seconds(lambda: target.copy_(source), 10)


def peers(place: Place) -> Iterator[dict[str, Any]]:
    """What torch reaches: a copy on the device, and the same matrix product."""
    bandwidth = copy_bandwidth(place)
    yield {"what": "copy on the device", "GB_per_second": bandwidth / 1e9}
    module = head(place.dimension).to(place.device)
    for dtype, embeddings in _embeddings(place):
        weight, bias = (parameter.detach().to(dtype) for parameter in module.parameters())
        taken = place.seconds(lambda e=embeddings, w=weight, b=bias: torch.nn.functional.linear(e, w, b), 10)
        yield _row(f"torch linear, {_name(dtype)}", embeddings, taken, bandwidth)


def speed(place: Place) -> Iterator[dict[str, Any]]:
    """Base rewards from tensors on the device: the share of the copy's bandwidth at which embeddings are read."""
    bandwidth, bundle = copy_bandwidth(place), place.base_rewards()
    yield {"what": "copy on the device", "GB_per_second": bandwidth / 1e9}
    for dtype, embeddings in _embeddings(place):
        taken = place.seconds(lambda e=embeddings: bundle.base_rewards(e), 10)
        row = _row(f"base rewards, {_name(dtype)}", embeddings, taken, bandwidth)
        if dtype == torch.float16:
            row |= place.aim(_SHARE, reached=row["share_of_copy"] >= _SHARE)
        yield row
        few = embeddings[: len(embeddings) // 64]
        taken = place.seconds(lambda e=few: bundle.base_rewards(e), 10)
        yield _row(f"base rewards, {_name(dtype)}", few, taken, bandwidth)
    array = np.ones((place.some(100_000, 500), place.dimension), np.float32)
    taken = place.seconds(lambda: bundle.base_rewards(array), 3)
    yield _row("base rewards, float32 array of the host", array, taken, bandwidth)


def _embeddings(place: Place) -> Iterator[tuple[torch.dtype, torch.Tensor]]:
    """As many as 8 GiB hold, or a sixth of the free memory, in half and in full precision."""
    room = min(2**33, torch.cuda.mem_get_info()[0] // 6) if place.device.type == "cuda" else 2**20
    for dtype in (torch.float16, torch.float32):
        rows = room // (place.dimension * dtype.itemsize)
        yield dtype, torch.randn(rows, place.dimension, dtype=dtype, device=place.device)


def _row(what: str, embeddings: Any, seconds: float, bandwidth: float) -> dict[str, Any]:
    read = embeddings.nbytes / seconds
    return {
        "what": what,
        "n": len(embeddings),
        "milliseconds": 1e3 * seconds,
        "GB_per_second": read / 1e9,
        "share_of_copy": read / bandwidth,
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
