"""An encoder on a server, over HTTP."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import SecretStr

from mrm_sdk.bundle.encoder_spec import PROBE_TEXT, digest
from mrm_sdk.encoders.remote.cache import VectorCache
from mrm_sdk.encoders.remote.endpoint import Endpoint
from mrm_sdk.encoders.remote.limits import Limits
from mrm_sdk.encoders.remote.protocols import PROTOCOLS, Input
from mrm_sdk.encoders.text_key import text_key
from mrm_sdk.encoders.tokenization import messages_of
from mrm_sdk.errors import ConfigurationError, EncoderError, TextRefusedError

if TYPE_CHECKING:
    from mrm_sdk.encoders.remote.connection import Connection

__all__ = ["TEMPLATE", "Limits", "RemoteEncoder"]

TEMPLATE: Final = "{prompt}\n\n{response}"
_FIELD = re.compile(r"\{(prompt|response)\}")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,100}")
_AZURE = re.compile(
    r".+\.((openai|cognitiveservices|services\.ai)\.azure\.(com|us|cn)|azure-api\.net)(:\d+)?", re.IGNORECASE
)
_BOS = ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "<｜begin▁of▁sentence｜>")


class RemoteEncoder:
    """Encodes with a server: OpenAI-compatible ones, vLLM, text-embeddings-inference, SGLang.

    Opens nothing until it is first used, may be shared by threads, and opens connections of its own in a forked
    process. Before the first request, and again after ``limits.probe_every`` seconds, it embeds a fixed text. If that
    vector is not the known one (from ``probe``, the cache, or the first time), the server has changed its model: it is
    refused until it serves the old one again, and vectors cached since the last good probe are dropped.

    Args:
        url: the server's address, with or without ``/v1`` or the endpoint's path. Neither a password nor a query in
            it is shown.
        protocol: ``openai`` (OpenAI, vLLM, TEI, Ollama: ``/v1/embeddings``), ``vllm`` (``/pooling``), ``tei``
            (``/embed``) or ``sglang`` (``/encode``).
        model: its name, as the server knows it.
        template: the text that is sent, made from ``{prompt}`` and ``{response}``; without a prompt the response
            alone. ``None`` sends chat messages, one conversation per request, for the server's own chat template
            (``vllm`` only). An empty text is sent as one space, because servers refuse empty input.
        dimension: D; if not given, it is learned from the first call to the server.
        shorten: ask for vectors of ``dimension`` numbers if the model's own are longer (``openai`` only).
        api_key: sent as a bearer token; never shown.
        api_key_header: the header that carries the key instead, as ``api-key`` does for Azure, where that is the
            default.
        cache: file that keeps embeddings across calls and processes, by content. It holds no text, but is not emptied
            by ``forget``, and nothing limits its size.
        probe: the vector [D] of ``PROBE_TEXT`` when a bundle was trained with this encoder.
        limits: batches, concurrency, timeouts and retries.

    Raises:
        ConfigurationError: an argument is invalid.

    Example:
        >>> from mrm_sdk import Limits, RemoteEncoder
        >>> RemoteEncoder("http://127.0.0.1:8000", protocol="openai", model="tiny", limits=Limits(timeout=5))
        RemoteEncoder('127.0.0.1:8000', protocol='openai', model='tiny')
    """

    def __init__(
        self,
        url: str | SecretStr,
        *,
        protocol: Literal["openai", "vllm", "tei", "sglang"],
        model: str,
        template: str | None = TEMPLATE,
        dimension: int | None = None,
        shorten: bool = False,
        api_key: str | SecretStr | None = None,
        api_key_header: str | None = None,
        cache: str | os.PathLike[str] | None = None,
        probe: ArrayLike | None = None,
        limits: Limits | None = None,
    ) -> None:
        if protocol not in PROTOCOLS:
            raise ConfigurationError(f"protocol must be one of {', '.join(PROTOCOLS)}, not {protocol!r}.")
        address, host = _endpoint_url(_text(url), PROTOCOLS[protocol].path)
        bearer = None if api_key is None else SecretStr(_checked_key(api_key))
        if bearer and "@" in urlsplit(address).netloc:
            raise ConfigurationError("Give a password in the url, or an api_key: a request can carry one of them only.")
        _check_template(template, protocol)
        if not isinstance(model, str) or not model.strip():
            raise ConfigurationError("model must be the name that the server knows its model by.")
        if dimension is not None and (type(dimension) is not int or dimension < 1):
            raise ConfigurationError("dimension must be 1 or more, a whole number.")
        if shorten and (protocol != "openai" or dimension is None):
            raise ConfigurationError("shorten=True needs protocol='openai' and the dimension to ask for.")
        self._dimension, self._template = dimension, template
        # Opened with the first request, when the host may be in another folder.
        self._cache = None if cache is None else Path(cache).absolute()
        self._probe = None if probe is None else _checked_probe(probe, dimension)
        self._endpoint = Endpoint(
            protocol=PROTOCOLS[protocol],
            url=SecretStr(address),
            host=host,
            key=bearer,
            key_header=_key_header(api_key_header, host),
            model=model,
            dimension=dimension,
            shorten=shorten,
            probe=self._input(*PROBE_TEXT),
            limits=limits or Limits(),
        )
        self._label = f"RemoteEncoder({host!r}, protocol={protocol!r}, model={model!r})"
        #: Of what determines the vectors, not of the address: the same model may be served elsewhere.
        self.fingerprint = digest(["remote", protocol, model, template, dimension if shorten else None])
        # By process: after a fork the parent's connections stay untouched, and the child opens its own.
        self._connections: dict[int, Connection] = {}
        self._closed = False

    def __repr__(self) -> str:
        return self._label

    @property
    def dimension(self) -> int:
        """D, the length of an embedding; asks the server if it is not known yet.

        Raises:
            EncoderError: the server does not answer.
            BundleMismatchError: it runs another model.
        """
        return self._dimension if self._dimension is not None else len(self.probe_vector())

    def probe_vector(self) -> NDArray[np.float32]:
        """The vector [D] of ``PROBE_TEXT``, to be given as ``probe`` later; a bundle stores it.

        Raises:
            EncoderError: the server does not answer.
            BundleMismatchError: it runs another model.
        """
        connection = self._connection()
        known = connection.known_probe
        if known is None:
            known = connection.submit(connection.verified_probe).result()
        return known.copy()

    def encode(self, texts: Sequence[tuple[str | None, str]]) -> NDArray[np.float32]:
        """Encodes (prompt or ``None``, response) pairs: n of them -> [n, D].

        Raises:
            TextRefusedError: the server does not take a text, or it is not valid Unicode; the error holds the
                others' vectors.
            EncoderError: the server does not answer, or with something else than vectors; or the cache is damaged.
            ConfigurationError: address, key or the cache's path is wrong.
            BundleMismatchError: the server runs another model than it did.
        """
        connection = self._connection()
        rows: dict[bytes, list[int]] = {}
        reasons: dict[int, str] = {}
        for index, (prompt, response) in enumerate(texts):
            try:
                rows.setdefault(text_key(self.fingerprint, prompt, response), []).append(index)
            except UnicodeEncodeError:
                reasons[index] = "it holds a lone surrogate, which is not valid Unicode"
        vectors = connection.cache.get(rows, self.dimension) if connection.cache else {}
        missing = [name for name in rows if name not in vectors]
        inputs = [self._input(*texts[rows[name][0]]) for name in missing]
        fetched, refused = self._fetch(connection, missing, inputs)
        reasons |= {index: reason for name, reason in refused.items() for index in rows[name]}
        vectors |= fetched
        if reasons:
            raise TextRefusedError.of(reasons, vectors)
        out = np.empty((len(texts), self.dimension), np.float32)
        for name, indices in rows.items():
            out[indices] = vectors[name]
        return out

    def close(self) -> None:
        """Closes connections and cache of this process; work under way in other threads ends with an error."""
        self._closed = True
        connection = self._connections.pop(os.getpid(), None)
        if connection is not None:
            connection.close()

    def __enter__(self) -> RemoteEncoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _input(self, prompt: str | None, response: str) -> Input:
        if self._template is None:
            return [*messages_of(prompt), {"role": "assistant", "content": response}]
        if prompt is None:
            return response or " "
        values = {"prompt": prompt, "response": response}
        return _FIELD.sub(lambda field: values[field[1]], self._template) or " "

    def _fetch(
        self, connection: Connection, names: list[bytes], inputs: list[Input]
    ) -> tuple[dict[bytes, NDArray[np.float32]], dict[bytes, str]]:
        """The vectors [D] of inputs, and why some are refused, by name.

        Each batch is cached on arrival, so that a failure loses none before it.

        Few batches are queued at a time, so that other threads get their turn during a long call.
        """
        size = 1 if self._template is None else connection.batch_size
        most, refusals = 2 * self._endpoint.limits.concurrency, connection.refusals
        vectors: dict[bytes, NDArray[np.float32]] = {}
        refused: dict[bytes, str] = {}
        sent: deque[tuple[int, Future[list[NDArray[np.float32] | str]]]] = deque()
        starts = iter(range(0, len(inputs), size))
        try:
            while True:
                for start in islice(starts, most - len(sent)):
                    sent.append((start, connection.submit(connection.vectors, inputs[start : start + size])))
                if not sent:
                    return vectors, refused
                start, future = sent.popleft()
                answers = dict(zip(names[start : start + size], future.result(), strict=True))
                refused |= {name: answer for name, answer in answers.items() if isinstance(answer, str)}
                fresh = {name: answer for name, answer in answers.items() if not isinstance(answer, str)}
                vectors |= connection.cache_vectors(fresh, refusals)
        finally:
            for _, future in sent:
                future.cancel()

    def _connection(self) -> Connection:
        from mrm_sdk.encoders.remote.connection import Connection
        from mrm_sdk.encoders.remote.transport import CLOSED

        if self._closed:
            raise EncoderError(CLOSED)
        connection = self._connections.get(os.getpid())
        if connection is None:
            cache = None if self._cache is None else VectorCache(self._cache, self.fingerprint)
            try:
                fresh = Connection(self._endpoint, cache, self._probe)
            except BaseException:
                if cache:
                    cache.close()
                raise
            # Two threads may both get here once. A lock instead could stay locked after a fork.
            connection = self._connections.setdefault(os.getpid(), fresh)
            if connection is not fresh:
                fresh.close()
        return connection


def _endpoint_url(url: str, path: str) -> tuple[str, str]:
    """The address of an endpoint, and its host for messages, from an address with or without ``path`` or ``/v1``."""
    import httpx

    try:
        parts = urlsplit(url.strip())
        parsed = httpx.URL(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))
        # Checked here, not in the middle of a request: a host name that httpx cannot decode or sockets cannot encode.
        valid = parts.scheme in ("http", "https") and bool(parsed.host) and parts.port != 0
        parsed.raw_host.decode("ascii").encode("idna")
    except (ValueError, httpx.InvalidURL):
        valid = False
    if not valid:  # not quoted: it may hold a password
        raise ConfigurationError("The server's url must look like http://host:8000 or https://host/v1.")
    base = parts.path.rstrip("/")
    # An endpoint at another path, as behind a gateway, is given whole.
    if not base.endswith(path[path.rindex("/") :]):
        base = base.removesuffix("/v1") + path
    return urlunsplit(parts._replace(path=base, fragment="")), parts.netloc.rpartition("@")[2]


def _text(value: str | SecretStr) -> str:
    """The text of a secret; empty, which no check lets pass, if it is neither text nor secret."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    return text if isinstance(text, str) else ""


def _checked_key(api_key: str | SecretStr) -> str:
    key = _text(api_key).strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError("api_key must be one word of printable ASCII characters; leave it out for no key.")
    return key


def _key_header(name: str | None, host: str) -> str:
    if name is None:
        return "api-key" if _AZURE.fullmatch(host) else "Authorization"
    if not isinstance(name, str) or not _HEADER.fullmatch(name):
        raise ConfigurationError("api_key_header must be the name of a header, as in api-key.")
    return "Authorization" if name.lower() == "authorization" else name


def _check_template(template: str | None, protocol: str) -> None:
    if template is None:
        if protocol != "vllm":
            raise ConfigurationError(
                f"template=None sends chat messages, which only protocol='vllm' takes. For {protocol}, give the chat "
                "template's text around {prompt} and {response}."
            )
        return
    if not isinstance(template, str) or "{response}" not in template:
        raise ConfigurationError("template must hold {response}, and should hold {prompt}.")
    if template.lstrip().startswith(_BOS):
        raise ConfigurationError("template must not begin with a BOS token: the server adds one itself.")


def _checked_probe(probe: ArrayLike, dimension: int | None) -> NDArray[np.float32]:
    try:
        vector = np.array(probe, np.float32)
    except (TypeError, ValueError):
        vector = np.empty(0, np.float32)
    if vector.ndim != 1 or not vector.size or dimension not in (None, len(vector)) or not np.isfinite(vector).all():
        raise ConfigurationError("probe must be one finite vector of the encoder's dimension.")
    return vector
