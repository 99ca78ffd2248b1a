"""One process's connection to a server of embeddings: requests, cache, and the probe that guards both."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.bundle.encoder_spec import PROBE_TOLERANCE, same_model
from mrm_sdk.encoders.remote.cache import VectorCache
from mrm_sdk.encoders.remote.endpoint import Endpoint
from mrm_sdk.encoders.remote.protocols import Input, parse_answer
from mrm_sdk.encoders.remote.refusal import RequestRefusedError
from mrm_sdk.encoders.remote.transport import CLOSED, RetryingClient
from mrm_sdk.errors import BundleMismatchError, ConfigurationError, EncoderError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Connection:
    """Sends inputs to a server whose probe has shown that it runs the expected model.

    Threads of one process may share it; locks and sockets do not survive a fork.

    Args:
        endpoint: the server.
        cache: of embeddings, closed with this connection.
        known_probe: the probe's vector [D], if it is known.

    Raises:
        BundleMismatchError: the cache belongs to another probe than ``known_probe``.
        ConfigurationError: the probe's vector in the cache has another dimension than the host gave.
        EncoderError: the cache is damaged.
    """

    def __init__(self, endpoint: Endpoint, cache: VectorCache | None, known_probe: NDArray[np.float32] | None) -> None:
        self.cache, self.known_probe = cache, known_probe
        cached = cache.known_probe() if cache else None
        if cache and cached is not None:
            if known_probe is not None and not same_model(cached, known_probe):
                raise BundleMismatchError(
                    f"The cache {cache.path} holds embeddings of another {endpoint.model} than the one expected here. "
                    "Delete it, or name another file: vectors of two models must not meet."
                )
            if endpoint.dimension not in (None, len(cached)):
                raise ConfigurationError(
                    f"The cache {cache.path} holds embeddings of {len(cached)} numbers, not of {endpoint.dimension}: "
                    "give the right dimension, or another file."
                )
            self.known_probe = cached if known_probe is None else known_probe
        self.refusals, self.reason = 0, ""
        self.batch_size = endpoint.limits.batch_size
        self._endpoint = endpoint
        self._probe_due = 0.0
        self._probe_lock = threading.Lock()
        self._client = RetryingClient(endpoint)
        # Every request runs on these threads: their number is the limit on concurrency.
        self._pool = ThreadPoolExecutor(endpoint.limits.concurrency, thread_name_prefix="mrm-encoder")

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

    def vectors(self, inputs: list[Input]) -> list[NDArray[np.float32] | str]:
        """Encodes inputs, after the probe when that is due. For :meth:`submit`.

        Returns:
            Of each input its vector [D], or why the server refuses it, while it takes the probe.

        Raises:
            EncoderError: the server does not answer, or not with vectors.
            ConfigurationError: address or key is wrong.
            BundleMismatchError: the server runs another model.
        """
        return self._answers(inputs, len(self.verified_probe()))

    def verified_probe(self) -> NDArray[np.float32]:
        """Returns the probe's vector [D]; asks the server for it again when that is due. For :meth:`submit`.

        Raises:
            EncoderError: the server does not answer, or with vectors of another length than the host gave.
            ConfigurationError: address or key is wrong.
            BundleMismatchError: the server runs another model.
        """
        with self._probe_lock:
            if self.known_probe is not None and time.monotonic() < self._probe_due:
                return self.known_probe
            started = time.time()
            (vector,) = self._probe_vectors()
            if self.known_probe is None and self._endpoint.dimension not in (None, len(vector)):
                raise EncoderError(
                    f"{self._endpoint.host} returned vectors of {len(vector)} numbers where {self._endpoint.dimension} "
                    "are expected. Check the model's name and the dimension."
                )
            known = vector if self.known_probe is None else self.known_probe
            # Another process may have filled the cache first: this one's vectors must fit its probe.
            stored = self.cache.store_probe(known) if self.cache else known
            if not (same_model(vector, known) and same_model(vector, stored)):
                self._refuse()
            if self.cache:
                self.cache.confirm_probe(started)
            self.known_probe = stored if self.known_probe is None else known
            self._probe_due = time.monotonic() + self._endpoint.limits.probe_every
            return self.known_probe

    def cache_vectors(
        self, vectors: dict[bytes, NDArray[np.float32]], refusals: int
    ) -> dict[bytes, NDArray[np.float32]]:
        """Caches and returns vectors [D], unless the server was refused while they were on their way.

        Args:
            vectors: by their key in the cache.
            refusals: as they stood before the vectors were asked for.

        Raises:
            BundleMismatchError: the server was refused since.
            EncoderError: the cache is damaged.
        """
        with self._probe_lock:
            if self.refusals != refusals:
                raise BundleMismatchError(self.reason)
            if self.cache:
                self.cache.put(vectors)
            return vectors

    def close(self) -> None:
        """Ends requests under way and closes connections and cache."""
        self._client.close()
        self._pool.shutdown()
        if self.cache:
            self.cache.close()

    def _refuse(self) -> None:
        endpoint, cache = self._endpoint, self.cache
        delete = f" and delete the cache {cache.path}" if cache else ""
        self.reason = (
            f"{endpoint.host} no longer serves the {endpoint.model} that earlier embeddings came from: its vector of a "
            f"fixed text differs by more than {PROBE_TOLERANCE:.0%}. Vectors of two models must not meet: serve the "
            f"old model again, or train a new bundle with this one{delete}."
        )
        self.refusals += 1
        if cache:
            cache.drop_unconfirmed()
        raise BundleMismatchError(self.reason)

    def _answers(self, inputs: list[Input], dimension: int) -> list[NDArray[np.float32] | str]:
        """The answers to one request, or to its halves if the server refuses the whole."""
        if len(inputs) <= self.batch_size:
            try:
                return list(self._request(inputs, dimension))
            except RequestRefusedError as error:
                if len(inputs) == 1:
                    self._probe_vectors()  # if the server does not take this either, the text is not at fault
                    return [str(error)]
                if error.by_count:  # so that later batches start with this size
                    self.batch_size = min(self.batch_size, (len(inputs) + 1) // 2)
        half = (len(inputs) + 1) // 2
        return [*self._answers(inputs[:half], dimension), *self._answers(inputs[half:], dimension)]

    def _probe_vectors(self) -> NDArray[np.float32]:
        """The probe's vector [1, D], asked for now.

        Raises:
            MrmError: what it means that the server refuses even this, or another error of the request.
        """
        try:
            return self._request([self._endpoint.probe], None)
        except RequestRefusedError as refusal:
            raise refusal.for_all from None

    def _request(self, inputs: list[Input], dimension: int | None) -> NDArray[np.float32]:
        """The vectors [n, D] of one request.

        Raises:
            RequestRefusedError: the server refuses what is in it.
            EncoderError: the server does not answer, or not with vectors.
            ConfigurationError: address or key is wrong.
        """
        endpoint = self._endpoint
        body = endpoint.protocol.body(endpoint.model, inputs, endpoint.dimension if endpoint.shorten else None)
        answer = self._client.post(json.dumps(body).encode())
        return parse_answer(endpoint.protocol, answer, len(inputs), dimension, endpoint.host)
