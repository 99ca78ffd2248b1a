"""A GPU made of the CPU, to test on a machine without one that no tensor is left behind.

Its tensors hold their numbers in memory and refuse, as real ones do, to be combined with tensors on the CPU. They say
that they are on ``meta``: a torch without CUDA knows how to run backward through no other device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

GPU = torch.device("meta")
# Takes tensors of both: copies, and indices that may stay on the CPU.
_MIXES = {"aten::copy_", "aten::_to_copy", "aten::index.Tensor", "aten::_index_put_impl_", "aten::index_put_"}


class OnGpu(Tensor):
    """A tensor that says it is on the GPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGpu:
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=GPU,
            requires_grad=False,
        )
        made.inner = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnGpu({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class PretendedGpu(TorchDispatchMode):
    """Inside this block there is a GPU; ``ran`` counts the operations that left their result there."""

    def __init__(self) -> None:
        super().__init__()
        self.ran = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = _run(func, args, kwargs or {})
        self.ran += any(isinstance(leaf, OnGpu) for leaf in tree_flatten(out)[0])
        return out


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    leaves = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
    there = any(isinstance(leaf, OnGpu) for leaf in leaves)
    name = func._schema.name if func._overloadname == "default" else f"{func._schema.name}.{func._overloadname}"
    left = [leaf for leaf in leaves if not isinstance(leaf, OnGpu) and leaf.dim() > 0]
    if there and left and name not in _MIXES:
        raise RuntimeError(f"{name}: a tensor of shape {list(left[0].shape)} is on cpu, others are on the GPU")
    asked = kwargs.get("device")
    to_gpu = there if asked is None else torch.device(asked) == GPU
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu"), "pin_memory": False}
        kwargs = {key: value for key, value in kwargs.items() if key in {a.name for a in func._schema.arguments}}
    given = tree_map(lambda leaf: leaf.inner if isinstance(leaf, OnGpu) else leaf, (args, kwargs))
    out = func(*given[0], **given[1])
    if func._schema.is_mutable and args and isinstance(args[0], Tensor):
        return args[0]
    return tree_map(lambda leaf: OnGpu(leaf) if to_gpu and isinstance(leaf, Tensor) else leaf, out)
