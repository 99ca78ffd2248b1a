"""What a host may have changed about torch, and this library's mathematics must not depend on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_torch_defaults() -> Iterator[None]:
    """Runs a block, or as a decorator a function, under torch's original defaults, and restores the host's.

    The device and the recording of gradients are the calling thread's own. The default type is one for the whole
    process, in torch itself: while the block runs, other threads see float32.
    """
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"), torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.set_default_dtype(dtype)
