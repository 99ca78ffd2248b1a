"""Which execution providers ONNX Runtime is asked for, and with which options."""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any, Final

from mrm_sdk.errors import MissingDependencyError
from mrm_sdk.settings import Settings

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
_BY_NAME: Final = {
    "cuda": CUDA,
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}
_ARENA: Final = {"power_of_two": "kNextPowerOfTwo", "as_requested": "kSameAsRequested"}


def onnxruntime() -> Any:
    """Imports ONNX Runtime, with its telemetry off unless the host has said otherwise.

    Raises:
        MissingDependencyError: neither distribution is installed, or a hollow module was left behind by removing one.
    """
    # From 1.29 on, importing it on Linux writes an identifier and a database of events into the user's home, which are
    # sent to its maker; switching that off afterwards is too late. A host that wants it sets the variable to 0.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime as runtime
    except ImportError:
        runtime = None
    if not hasattr(runtime, "InferenceSession"):
        raise MissingDependencyError(
            "Running a bundle needs ONNX Runtime, which is not installed (or was left hollow when its other "
            "distribution was removed). Run: pip install 'mrm-sdk[gpu]' on a machine with an NVIDIA GPU, else "
            "pip install 'mrm-sdk[cpu]' (never both; uninstall onnxruntime and onnxruntime-gpu first)"
        )
    return runtime


def wanted_providers(settings: Settings, available: list[str]) -> list[str]:
    """Returns the execution providers to ask for, best first; the CPU is always the last resort."""
    if settings.providers == "auto":
        return [CUDA, CPU] if CUDA in available else [CPU]
    if settings.providers == "cpu":
        return [CPU]
    # What TensorRT cannot run, CUDA can.
    between = [CUDA] if settings.providers == "tensorrt" else []
    return [_BY_NAME[settings.providers], *between, CPU]


def with_options(provider: str, settings: Settings) -> tuple[str, dict[str, str]]:
    """An execution provider and its options, in the form that a session takes."""
    if provider == CUDA:
        options = {
            "device_id": str(settings.device_id),
            "arena_extend_strategy": _ARENA[settings.arena_extend_strategy],
            # TensorFloat-32 rounds to 10 bits: float32 means float32 here, and float16 is faster still.
            "use_tf32": "0",
        }
        if settings.gpu_mem_limit:
            options["gpu_mem_limit"] = str(settings.gpu_mem_limit)
        return provider, options
    if provider in (_BY_NAME["tensorrt"], _BY_NAME["directml"]):
        return provider, {"device_id": str(settings.device_id)}
    return provider, {}


def preload(runtime: Any) -> None:
    """Loads CUDA's libraries from NVIDIA's wheels where they are installed; a session tells what is missing."""
    if hasattr(runtime, "preload_dlls"):
        # It prints what it cannot find, which is no business of a host's standard output.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(OSError, RuntimeError):
            runtime.preload_dlls(directory="")
