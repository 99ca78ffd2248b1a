"""One process's line to a server of embeddings: requests, and the probe that guards them; imports sending and cache."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.bundle.encoder_spec import PROBE_TOLERANCE
from mrm_sdk.encoders.remote.cache import VectorCache
from mrm_sdk.encoders.remote.limits import Asking
from mrm_sdk.encoders.remote.protocols import Input, read
from mrm_sdk.encoders.remote.transport import CLOSED, Sender, TooLargeError
from mrm_sdk.errors import BundleMismatchError, ConfigurationError, EncoderError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Connection:
    """Sends inputs to a server that has shown, by its probe, that it runs the model it is expected to.

    Used by any thread of the process that made it; locks and sockets do not outlive a fork.

    Args:
        asking: the server, and how to ask it.
        cache: of embeddings, closed with this connection.
        known: the probe's vector [D], where somebody knows it.

    Raises:
        BundleMismatchError: the cache belongs to another probe than ``known``.
        ConfigurationError: the probe's vector in the cache has not the dimension that the host said.
        EncoderError: the cache is damaged.
    """

    def __init__(self, asking: Asking, cache: VectorCache | None, known: NDArray[np.float32] | None) -> None:
        self.cache, self.known = cache, known
        cached = cache.known() if cache else None
        if cache and cached is not None:
            if known is not None and not alike(cached, known):
                raise BundleMismatchError(
                    f"The cache {cache.path} holds embeddings of another {asking.model} than the one expected here. "
                    "Delete it, or name another file: vectors of two models must not meet."
                )
            if asking.dimension not in (None, len(cached)):
                raise ConfigurationError(
                    f"The cache {cache.path} holds embeddings of {len(cached)} numbers, not of {asking.dimension}: "
                    "give the right dimension, or another file."
                )
            self.known = cached if known is None else known
        self.refusals, self.reason = 0, ""
        self.batch_size = asking.limits.batch_size
        self._asking = asking
        self._due = 0.0
        self._probing = threading.Lock()
        self._sender = Sender(asking)
        # Every request runs on these threads, which is what holds the limit on concurrency.
        self._pool = ThreadPoolExecutor(asking.limits.concurrency, thread_name_prefix="mrm-encoder")

    def submit(
        self, work: Callable[Parameters, Result], *arguments: Parameters.args, **named: Parameters.kwargs
    ) -> Future[Result]:
        """Starts ``work`` as soon as the limit on concurrency allows.

        Raises:
            EncoderError: the encoder was closed.
        """
        try:
            return self._pool.submit(work, *arguments, **named)
        except RuntimeError:
            raise EncoderError(CLOSED) from None

    def vectors(self, inputs: list[Input]) -> NDArray[np.float32]:
        """Encodes n inputs -> [n, D], with the probe before them where it is due; for :meth:`submit`.

        Raises:
            EncoderError: the server does not answer, or not with vectors.
            ConfigurationError: address or key is wrong.
            BundleMismatchError: the server runs another model.
        """
        return self._sent(inputs, len(self.verified()))

    def verified(self) -> NDArray[np.float32]:
        """Returns the probe's vector [D], after asking the server for it where that is due; for :meth:`submit`.

        Raises:
            EncoderError: the server does not answer, or with vectors of another length than the host said.
            ConfigurationError: address or key is wrong.
            BundleMismatchError: the server runs another model.
        """
        with self._probing:
            if self.known is not None and time.monotonic() < self._due:
                return self.known
            started = time.time()
            (vector,) = self._sent([self._asking.probe], None)
            if self.known is None and self._asking.dimension not in (None, len(vector)):
                raise EncoderError(
                    f"{self._asking.host} returned vectors of {len(vector)} numbers where {self._asking.dimension} are "
                    "expected. Check the model's name and the dimension."
                )
            known = vector if self.known is None else self.known
            # Another process may have been first to fill the cache: this one's vectors have to fit its.
            kept = self.cache.probe(known) if self.cache else known
            if not (alike(vector, known) and alike(vector, kept)):
                self._refuse()
            if self.cache:
                self.cache.vouch(started)
            self.known = kept if self.known is None else known
            self._due = time.monotonic() + self._asking.limits.probe_every
            return self.known

    def release(self, vectors: dict[bytes, NDArray[np.float32]], refusals: int) -> dict[bytes, NDArray[np.float32]]:
        """Caches vectors [D] and lets them go, unless the server was refused while they were on their way.

        Args:
            vectors: by their key in the cache.
            refusals: as they stood before the vectors were asked for.

        Raises:
            BundleMismatchError: the server was refused since.
            EncoderError: the cache is damaged.
        """
        with self._probing:
            if self.refusals != refusals:
                raise BundleMismatchError(self.reason)
            if self.cache:
                self.cache.put(vectors)
            return vectors

    def close(self) -> None:
        """Ends what is under way and closes connections and cache."""
        self._sender.close()
        self._pool.shutdown()
        if self.cache:
            self.cache.close()

    def _refuse(self) -> None:
        asking, cache = self._asking, self.cache
        delete = f" and delete the cache {cache.path}" if cache else ""
        self.reason = (
            f"{asking.host} no longer serves the {asking.model} that earlier embeddings came from: its vector of a "
            f"fixed text differs by more than {PROBE_TOLERANCE:.0%}. Vectors of two models must not meet: serve the "
            f"old model again, or train a new bundle with this one{delete}."
        )
        self.refusals += 1
        if cache:
            cache.disown()
        raise BundleMismatchError(self.reason)

    def _sent(self, inputs: list[Input], dimension: int | None) -> NDArray[np.float32]:
        """The vectors [n, D] of one request, or of its halves where the server refuses the whole."""
        asking, half = self._asking, (len(inputs) + 1) // 2
        if len(inputs) <= self.batch_size:
            body = asking.protocol.body(asking.model, inputs, asking.dimension if asking.shorten else None)
            try:
                answer = self._sender.post(json.dumps(body).encode())
                return read(asking.protocol, answer, len(inputs), dimension, asking.host)
            except TooLargeError as error:
                if len(inputs) == 1:
                    raise EncoderError(str(error)) from None
                if error.by_count:  # later batches need not find out again
                    self.batch_size = min(self.batch_size, half)
        return np.concatenate([self._sent(part, dimension) for part in (inputs[:half], inputs[half:])])


def alike(vector: NDArray[np.float32], known: NDArray[np.float32]) -> bool:
    """Whether two vectors [D] of one text can come from one model.

    Batches of other sizes move real servers' vectors by about 1e-3 of their length, far within the tolerance.
    """
    if vector.shape != known.shape:
        return False
    difference = np.linalg.norm(vector.astype(np.float64) - known)
    return bool(difference <= PROBE_TOLERANCE * np.linalg.norm(known.astype(np.float64)))
