"""Runs a session on buffers that already lie on its device.

A session's plain ``run`` allocates on the device for inputs and outputs on every call. Here inputs are written into
buffers that stay, results come out of one that stays, and a torch tensor is read where it lies.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

_SMALLEST = 1024
# Element types of ONNX, by torch's names; numpy has no bfloat16.
_ONNX_TYPES = {"torch.float32": 1, "torch.float16": 10, "torch.bfloat16": 16}


class BoundSession:
    """A session whose inputs and outputs stay on one device; safe to share between threads, which take turns.

    A buffer's size is the next power of two: however lengths vary, all buffers of one input take less than twice what
    the largest does.

    Args:
        runtime: the module ``onnxruntime``.
        session: an open session.
        device: ``cuda``, or ``cpu``, where this is the same as ``run`` but for a copy.
        device_id: which of several.
    """

    def __init__(self, runtime: Any, session: Any, device: str, device_id: int) -> None:
        self._runtime, self._session, self._device, self._id = runtime, session, device, device_id
        self._widths = {output.name: output.shape[1] for output in session.get_outputs()}
        self._buffers: dict[tuple[str, int], tuple[NDArray[Any], Any]] = {}
        self._lock = threading.Lock()

    def run(self, inputs: Mapping[str, NDArray[Any]], output: str) -> NDArray[np.float32]:
        """Runs on arrays [n, ...] of the host and returns the output [n, width] there."""
        rows = len(next(iter(inputs.values())))
        shape = (rows, self._widths[output])
        if not rows:
            return np.zeros(shape, np.float32)
        with self._lock:
            binding = self._session.io_binding()
            for name, array in inputs.items():
                staged, value = self._buffer(name, array.size, array.dtype)
                staged[: array.size] = array.reshape(-1)
                value.update_inplace(staged)
                self._bind(binding.bind_input, name, array.dtype.type, array.shape, value.data_ptr())
            _, result = self._buffer(output, rows * shape[1], np.dtype(np.float32))
            self._bind(binding.bind_output, output, np.float32, shape, result.data_ptr())
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            flat: NDArray[np.float32] = result.numpy()
            # A copy: the buffer is written again by the next run.
            return flat[: rows * shape[1]].reshape(shape).copy()

    def run_tensor(self, name: str, tensor: Tensor, output: str) -> Tensor:
        """Runs on a tensor [n, D] of this device, and returns the output [n, width] there, in the tensor's type."""
        import torch

        tensor = tensor.detach().contiguous()
        result = torch.empty((len(tensor), self._widths[output]), dtype=tensor.dtype, device=tensor.device)
        if not len(tensor):  # which has no address
            return result
        kind = _ONNX_TYPES[str(tensor.dtype)]
        binding = self._session.io_binding()
        self._bind(binding.bind_input, name, kind, tuple(tensor.shape), tensor.data_ptr())
        self._bind(binding.bind_output, output, kind, tuple(result.shape), result.data_ptr())
        # The runtime makes its device the thread's current one, which the caller may not want: torch puts it back.
        with self._lock, torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext():
            if tensor.is_cuda:
                # The runtime's stream does not wait for what torch still computes, in the tensor or, freed since, in
                # the memory of the result.
                torch.cuda.current_stream(tensor.device).synchronize()
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()
        return result

    def _bind(self, bind: Any, name: str, kind: Any, shape: tuple[int, ...], pointer: int) -> None:
        bind(name, self._device, self._id, kind, shape, pointer)

    def _buffer(self, name: str, size: int, dtype: np.dtype[Any]) -> tuple[NDArray[Any], Any]:
        capacity = max(_SMALLEST, 1 << (size - 1).bit_length())
        if (name, capacity) not in self._buffers:
            make = self._runtime.OrtValue.ortvalue_from_shape_and_type
            value = make([capacity], dtype.type, self._device, self._id)
            self._buffers[name, capacity] = np.zeros(capacity, dtype), value
        return self._buffers[name, capacity]
