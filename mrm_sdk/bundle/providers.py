"""ONNX Runtime sessions: opened late, checked for the provider that really started; imports settings and errors."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.errors import BundleMismatchError, EncoderError, MissingDependencyError, ProviderError
from mrm_sdk.settings import Settings

logger = logging.getLogger("mrm_sdk")

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_warned: set[str] = set()
# Sessions of a parent process are kept for good: destroying one waits for threads that a fork left behind.
_inherited: list[Any] = []


def onnxruntime() -> Any:
    """Imports ONNX Runtime.

    Raises:
        MissingDependencyError: neither distribution is installed, or a hollow module was left behind by removing one.
    """
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
    wanted = settings.providers == "cuda" or (settings.providers == "auto" and _CUDA in available)
    return [_CUDA, _CPU] if wanted else [_CPU]


class GraphSession:
    """One ONNX graph, ready to run from any thread and in any process.

    The session is opened on first use, and again after a fork: the runtime's thread pool does not survive one.

    Args:
        name: of the graph's file, for messages.
        read: returns the graph's verified bytes.
        inputs: the names of inputs that the graph must have.
        settings: providers and threads.
    """

    def __init__(self, name: str, read: Callable[[], bytes], inputs: frozenset[str], settings: Settings) -> None:
        self._name, self._read, self._inputs, self._settings = name, read, inputs, settings
        self._opened: tuple[int, Any] = (0, None)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Runs the graph and returns its only output.

        Raises:
            BundleMismatchError: the graph is not one of ours.
            EncoderError: the runtime refused the inputs.
            ProviderError: under ``strict_providers``, the provider asked for did not start.
            MissingDependencyError: there is no ONNX Runtime.
        """
        session = self._open()
        try:
            (output,) = session.run(None, dict(inputs))
        except Exception as error:  # the runtime's exceptions share no public base class
            raise EncoderError(f"{self._name} failed to run: {error}") from error
        return np.asarray(output, dtype=np.float32)

    @property
    def providers(self) -> list[str]:
        """The providers that really started."""
        return list(self._open().get_providers())

    def _open(self) -> Any:
        pid, session = self._opened
        if pid != os.getpid():
            # Two threads may both get here once; the second session is then dropped, which a lock that a fork could
            # leave locked would not be worth avoiding.
            _inherited.append(session)
            session = self._start()
            self._opened = (os.getpid(), session)
        return session

    def _start(self) -> Any:
        runtime = onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self._settings.threads
        options.log_severity_level = 3
        wanted = wanted_providers(self._settings, runtime.get_available_providers())
        # A provider that is not compiled in would only be ignored with a warning of the runtime's own.
        asked = [p for p in wanted if p in runtime.get_available_providers()]
        try:
            session = runtime.InferenceSession(self._read(), options, providers=asked)
        except Exception as error:  # the runtime's exceptions share no public base class
            if type(error).__module__.startswith("mrm_sdk"):
                raise
            raise BundleMismatchError(f"{self._name} cannot be opened by ONNX Runtime: {error}") from error
        names = {graph_input.name for graph_input in session.get_inputs()}
        if names != self._inputs or len(session.get_outputs()) != 1:
            raise BundleMismatchError(
                f"{self._name} must have the inputs {sorted(self._inputs)} and one output; it has the inputs "
                f"{sorted(names)} and {len(session.get_outputs())} outputs."
            )
        if wanted[0] not in session.get_providers():
            message = (
                f"{wanted[0]} did not start; running on {session.get_providers()[0]}. "
                "Run 'mrm doctor' to see why, or set providers='cpu'."
            )
            if self._settings.strict_providers:
                raise ProviderError(message)
            if message not in _warned:
                _warned.add(message)
                logger.warning(message)
        return session
