"""Where meta-training computes: on the CPU or a GPU, and on how many threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mrm_sdk.errors import ConfigurationError

CPU = torch.device("cpu")


def device_of(name: str) -> torch.device:
    """The device called ``cpu``, ``cuda``, or ``auto``: a GPU if torch can use one, else the CPU.

    Raises:
        ConfigurationError: ``cuda``, and torch can use no GPU.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return CPU
    if not torch.cuda.is_available():
        built = f"torch {torch.__version__}" + ("" if torch.version.cuda else ", which was built without CUDA,")
        raise ConfigurationError(
            f"{built} can use no GPU here: train with device='cpu' (--device cpu), or install a torch with CUDA on a "
            "machine with an NVIDIA GPU ('mrm doctor' says what is missing)."
        )
    return torch.device("cuda", torch.cuda.current_device())


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs torch on one thread: for batches of small matrices more threads gain nothing and take others' cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
