"""How much load an encoder puts on its server, and how long it waits for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mrm_sdk.errors import ConfigurationError


@dataclass(frozen=True)
class Limits:
    """Limits of the requests to a server.

    Args:
        batch_size: texts in one request, at most OpenAI's 2,048; a server that refuses so many gets half.
        concurrency: requests under way at once from one process, over all threads that share the encoder.
        timeout: seconds to wait for a connection, and for each part of an answer.
        retries: further attempts after a connection error, a timeout, or status 408, 424, 429, 500, 502, 503 or 504.
        backoff: seconds; the wait before repetition n is drawn from 0 to ``backoff * 2 ** (n - 1)``, and added to what
            the server's ``Retry-After`` asks for.
        longest_wait: seconds; no wait is longer, also if the server asks for more.
        probe_every: seconds after which the probe is taken again, before the next request.

    Raises:
        ConfigurationError: a value is out of range, or not of its kind.
    """

    batch_size: int = 32
    concurrency: int = 4
    timeout: float = 30.0
    retries: int = 5
    backoff: float = 0.5
    longest_wait: float = 60.0
    probe_every: float = 300.0

    def __post_init__(self) -> None:
        ranges = {"batch_size": (1, 2048), "concurrency": (1, 256), "retries": (0, 100), "timeout": (1e-3, 3600.0)}
        ranges["longest_wait"] = (0, 86_400)  # threads cannot wait forever
        for name, value in vars(self).items():
            low, high = ranges.get(name, (0, math.inf))
            whole = name in ("batch_size", "concurrency", "retries")
            # True and False are ints to Python.
            number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            if not number or not low <= value <= high:
                kind = "whole number" if whole else "number"
                raise ConfigurationError(f"Limits({name}={value!r}): give a {kind} from {low:g} to {high:g}.")
