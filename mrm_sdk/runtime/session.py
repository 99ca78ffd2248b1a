"""ONNX Runtime sessions: opened late, checked for the provider that really started."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.errors import (
    BundleMismatchError,
    ConfigurationError,
    EncoderError,
    MrmError,
    OutOfMemoryError,
    ProviderError,
)
from mrm_sdk.runtime.binding import BoundSession
from mrm_sdk.runtime.cpus import available_cpus
from mrm_sdk.runtime.providers import CPU, CUDA, onnxruntime, preload, wanted_providers, with_options
from mrm_sdk.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger("mrm_sdk")

_NO_MEMORY = re.compile(
    r"out of memory|failed to allocate|bad_alloc|BFCArena|smaller than requested bytes|MemoryAllocation|ALLOC_FAILED",
    re.IGNORECASE,
)
_HALVED = "{}: a batch did not fit into memory; it is run in halves. Lower encode_tokens."
_warned: set[str] = set()
# Sessions of a parent process are kept for good: destroying one waits for threads that a fork left behind.
_inherited: list[Any] = []


@dataclass(frozen=True)
class _Opened:
    """An open session and what belongs to it, in one process."""

    pid: int
    session: Any
    providers: tuple[str, ...]
    bound: BoundSession | None
    workers: int
    pool: ThreadPoolExecutor | None


class GraphSession:
    """One ONNX graph, ready to run from any thread and in any process.

    The session is opened on first use, and again after a fork: the runtime's thread pool does not survive one. On a
    CPU, each run takes one thread and batches run beside each other: threads that share the small matrix products of
    one batch would mostly wait for each other.

    Args:
        name: of the graph's file, for messages.
        read: returns the graph's verified bytes.
        inputs: the names of inputs that the graph must have.
        outputs: the names of outputs that the graph must have.
        settings: providers, threads and memory.
        optional: names of inputs that it may have.
        folder: where the graph's external data lie, if it has any.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[], bytes],
        inputs: frozenset[str],
        outputs: frozenset[str],
        settings: Settings,
        *,
        optional: frozenset[str] = frozenset(),
        folder: Path | None = None,
    ) -> None:
        self._name, self._read, self._settings, self._folder = name, read, settings, folder
        self._inputs, self._outputs, self._optional = inputs, outputs, optional
        self._opened: _Opened | None = None
        self._locks: dict[int, threading.Lock] = {}

    @property
    def providers(self) -> list[str]:
        """The providers that really started."""
        return list(self._open().providers)

    @property
    def on_cpu(self) -> bool:
        """Whether the graph runs on the CPU."""
        return self._open().providers[0] == CPU

    @property
    def on_cuda(self) -> bool:
        """Whether torch tensors of its GPU are read where they lie."""
        return self._open().bound is not None

    @property
    def threads(self) -> int:
        """How many batches run at once."""
        return self._open().workers

    @property
    def inputs(self) -> frozenset[str]:
        """The names of the inputs that the graph has."""
        return frozenset(graph_input.name for graph_input in self._open().session.get_inputs())

    def run(self, inputs: Mapping[str, NDArray[Any]], output: str) -> NDArray[np.float32]:
        """Runs the graph on arrays [n, ...] and returns one of its outputs, [n, width].

        Raises:
            BundleMismatchError: the graph is not one of ours.
            EncoderError: the runtime refused the inputs.
            OutOfMemoryError: they do not fit into memory.
            ProviderError: under ``strict_providers``, the requested provider did not start.
            MissingDependencyError: there is no ONNX Runtime.
        """
        opened = self._open()
        try:
            if opened.bound is not None:
                return opened.bound.run(inputs, output)
            (result,) = opened.session.run([output], dict(inputs))
        except Exception as error:  # the runtime's exceptions share no public base class
            raise self._failure(error) from error
        return np.asarray(result, dtype=np.float32)

    def run_tensor(self, name: str, tensor: Tensor, output: str) -> Tensor:
        """Runs a graph that is on CUDA on a torch tensor [n, D] there, without a copy; in halves where it must.

        Returns:
            The output [n, width], on the tensor's device and of its type.

        Raises:
            ConfigurationError: the tensor lies on another device than the session.
            OutOfMemoryError: a single row does not fit.
        """
        bound = self._open().bound
        if bound is None or not tensor.is_cuda:
            raise ConfigurationError("This session does not run on CUDA, or the tensor lies elsewhere.")
        if tensor.device.index != self._settings.device_id:
            raise ConfigurationError(
                f"The tensor lies on {tensor.device}, the session on cuda:{self._settings.device_id}: "
                f"set device_id={tensor.device.index}, or move the tensor."
            )
        try:
            return bound.run_tensor(name, tensor, output)
        except Exception as error:  # as above
            failure = self._failure(error)
            if not isinstance(failure, OutOfMemoryError) or len(tensor) < 2:
                raise failure from error
        import torch

        self._warn(_HALVED.format(self._name))
        return torch.cat([self.run_tensor(name, half, output) for half in tensor.tensor_split(2)])

    def fill(
        self,
        out: NDArray[np.float32],
        batches: Iterable[NDArray[np.intp]],
        prepare: Callable[[NDArray[np.intp]], Mapping[str, NDArray[Any]]],
        output: str,
    ) -> None:
        """Runs batches and writes each one's output to its rows of ``out`` [n, width].

        A batch that does not fit into memory is run in two halves, and these in halves again, with a warning once.

        Args:
            out: is written.
            batches: row numbers.
            prepare: row numbers -> the graph's inputs.
            output: which one.

        Raises:
            OutOfMemoryError: a single row does not fit.
        """

        def work(rows: NDArray[np.intp]) -> None:
            try:
                out[rows] = self.run(prepare(rows), output)
            except OutOfMemoryError:
                if len(rows) == 1:
                    raise
                self._warn(_HALVED.format(self._name))
                for half in np.array_split(rows, 2):
                    work(half)

        pool, remaining = self._open().pool, iter(batches)
        beginning = list(islice(remaining, 2))
        if pool is None or len(beginning) < 2:
            for rows in chain(beginning, remaining):
                work(rows)
            return
        # Few at a time: a call with one text waits for a few batches of another call's long list, not for all of them.
        under_way: deque[Future[None]] = deque()
        try:
            for rows in chain(beginning, remaining):
                if len(under_way) == 2 * self.threads:
                    under_way.popleft().result()
                under_way.append(pool.submit(work, rows))
            while under_way:
                under_way.popleft().result()
        finally:
            wait(under_way)

    def _failure(self, error: Exception) -> MrmError:
        if isinstance(error, MrmError):
            return error
        if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
            return OutOfMemoryError(
                f"{self._name} does not fit into memory: {str(error)[:200]}. Lower encode_tokens, raise gpu_mem_limit, "
                "or use a larger device."
            )
        return EncoderError(f"{self._name} failed to run: {error}")

    def _open(self) -> _Opened:
        opened = self._opened
        if opened is not None and opened.pid == os.getpid():
            return opened
        # A lock for every process: a fork may leave the parent's locked.
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            opened = self._opened
            if opened is None or opened.pid != os.getpid():
                _inherited.append(opened)
                opened = self._opened = self._start()
            return opened

    def _start(self) -> _Opened:
        runtime = onnxruntime()
        available = runtime.get_available_providers()
        wanted = wanted_providers(self._settings, available)
        if CUDA in wanted and CUDA in available:
            preload(runtime)
        session, why = self._session(runtime, [provider for provider in wanted if provider in available])
        providers = tuple(session.get_providers())
        if wanted[0] not in providers:
            message = f"{wanted[0]} did not start; running on {providers[0]}{why and f' ({why})'}. "
            message += "Run 'mrm doctor' to see why, or set providers='cpu'."
            if self._settings.strict_providers:
                raise ProviderError(message)
            self._warn(message)
        on_gpu = providers[0] == CUDA or (providers[0] != CPU and CUDA in providers)
        bound = BoundSession(runtime, session, "cuda", self._settings.device_id) if on_gpu else None
        workers = (self._settings.threads or available_cpus()) if providers[0] == CPU else 1
        pool = ThreadPoolExecutor(workers, "mrm_sdk") if workers > 1 else None
        return _Opened(os.getpid(), session, providers, bound, workers, pool)

    def _session(self, runtime: Any, providers_to_try: list[str]) -> tuple[Any, str]:
        """An open session, and why it runs on the CPU although another provider was requested."""
        options = runtime.SessionOptions()
        # A plan of memory is kept for every shape there ever was. On a GPU, whose batches are of any size, these
        # would grow without end, and each plan's one large block would fit no hole that another one left.
        options.enable_mem_pattern = providers_to_try == [CPU]
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if self._folder is not None:
            key = "session.model_external_initializers_file_folder_path"
            options.add_session_config_entry(key, str(self._folder))
        graph, why = self._read(), ""
        try:
            try:
                session = self._start_on(runtime, graph, options, providers_to_try)
            except Exception as error:
                # Where it is the accelerator's fault the CPU can still do it, and where it is the graph's it cannot.
                if providers_to_try == [CPU]:
                    raise
                why = " ".join(str(error).split())[:200]
                session = self._start_on(runtime, graph, options, [CPU])
        except Exception as error:  # the runtime's exceptions share no public base class
            if _NO_MEMORY.search(str(error)):
                raise self._failure(error) from error
            lacking = " On a CPU, ONNX Runtime has no operators in bfloat16." if "NOT_IMPLEMENTED" in str(error) else ""
            raise BundleMismatchError(f"{self._name} cannot be opened by ONNX Runtime: {error}{lacking}") from error
        self._check(session)
        return session, why

    def _start_on(self, runtime: Any, graph: bytes, options: Any, providers: list[str]) -> Any:
        providers_and_options = [with_options(provider, self._settings) for provider in providers]
        # Its own fallback prints to standard output.
        return runtime.InferenceSession(graph, options, providers=providers_and_options, enable_fallback=0)

    def _check(self, session: Any) -> None:
        inputs = {graph_input.name for graph_input in session.get_inputs()}
        outputs = {graph_output.name for graph_output in session.get_outputs()}
        if not self._inputs <= inputs <= self._inputs | self._optional or not self._outputs <= outputs:
            raise BundleMismatchError(
                f"{self._name} must have the inputs {sorted(self._inputs)} and the outputs {sorted(self._outputs)}; "
                f"it has the inputs {sorted(inputs)} and the outputs {sorted(outputs)}."
            )

    def _warn(self, message: str) -> None:
        if message not in _warned:
            _warned.add(message)
            logger.warning(message)
