"""Where meta-training computes: the CPU, or a GPU where one is asked for; imports errors and torch."""

from __future__ import annotations

import torch

from mrm_sdk.errors import ConfigurationError

CPU = torch.device("cpu")


def device_of(name: str) -> torch.device:
    """The device called ``cpu``, ``cuda``, or ``auto``: a GPU where torch can use one, else the CPU.

    Raises:
        ConfigurationError: a GPU is asked for, and torch can use none.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return CPU
    if not torch.cuda.is_available():
        built = f"torch {torch.__version__}" + ("" if torch.version.cuda else ", which was built without CUDA,")
        raise ConfigurationError(
            f"{built} can use no GPU here: train with device='cpu' (--device cpu), or install a torch with CUDA on a "
            "machine with an NVIDIA GPU ('mrm doctor' tells what is missing)."
        )
    return torch.device("cuda", torch.cuda.current_device())
