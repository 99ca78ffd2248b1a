"""An encoder that a server runs, asked over HTTP; imports bundle's digests, schemas and, on first use, httpx."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import SecretStr

from mrm_sdk.bundle.encoder_spec import PROBE_TEXT, digest
from mrm_sdk.encoders.remote.cache import VectorCache, key
from mrm_sdk.encoders.remote.limits import Asking, Limits
from mrm_sdk.encoders.remote.protocols import PROTOCOLS, Input
from mrm_sdk.encoders.tokenization import messages_of
from mrm_sdk.errors import ConfigurationError, EncoderError, InvalidInputError

if TYPE_CHECKING:
    from mrm_sdk.encoders.remote.connection import Connection

__all__ = ["TEMPLATE", "Limits", "RemoteEncoder"]

TEMPLATE: Final = "{prompt}\n\n{response}"
_FIELD = re.compile(r"\{(prompt|response)\}")
_BOS = ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "<｜begin▁of▁sentence｜>")


class RemoteEncoder:
    """Encodes with a server: OpenAI's embeddings and what speaks like them, vLLM, text-embeddings-inference, SGLang.

    Opens nothing until it is first used, may be shared by threads, and starts anew in a forked process. Before the
    first request, and again after ``limits.probe_every`` seconds, it embeds a fixed text: where that vector is not the
    one known (from ``probe``, the cache, or the first time), the server has changed its model, and is refused until it
    serves the old one again; what was cached since the last good probe is dropped.

    Args:
        url: the server's address, with or without ``/v1`` or the endpoint's path. Neither a password nor a query in
            it is shown.
        protocol: ``openai`` (OpenAI, vLLM, TEI, Ollama: ``/v1/embeddings``), ``vllm`` (``/pooling``), ``tei``
            (``/embed``) or ``sglang`` (``/encode``).
        model: its name, as the server knows it.
        template: the text that is sent, made from ``{prompt}`` and ``{response}``; without a prompt the response
            alone. ``None`` sends chat messages, one conversation per request, for the server's own chat template
            (``vllm`` only). An empty text is sent as one space, which servers take where they refuse nothing at all.
        dimension: D; without it the first call to the server tells.
        shorten: ask for vectors of ``dimension`` numbers where the model's own are longer (``openai`` only).
        api_key: sent as a bearer token; never shown.
        cache: file that keeps embeddings across calls and processes, by content. It holds no text, but is not emptied
            by ``forget``, and nothing limits its size.
        probe: the vector [D] that ``PROBE_TEXT`` had for whoever trained with this encoder.
        limits: batches, concurrency, timeouts and retries.

    Raises:
        ConfigurationError: an argument is invalid.
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
        cache: str | os.PathLike[str] | None = None,
        probe: ArrayLike | None = None,
        limits: Limits | None = None,
    ) -> None:
        if protocol not in PROTOCOLS:
            raise ConfigurationError(f"protocol must be one of {', '.join(PROTOCOLS)}, not {protocol!r}.")
        endpoint, host = _endpoint(_text(url), PROTOCOLS[protocol].path)
        bearer = None if api_key is None else SecretStr(_checked_key(api_key))
        if bearer and "@" in urlsplit(endpoint).netloc:
            raise ConfigurationError("Give a password in the url, or an api_key: a request can carry one of them only.")
        _check_template(template, protocol)
        if not isinstance(model, str) or not model.strip():
            raise ConfigurationError("model must be the name that the server knows its model by.")
        if dimension is not None and (type(dimension) is not int or dimension < 1):
            raise ConfigurationError("dimension must be 1 or more, a whole number.")
        if shorten and (protocol != "openai" or dimension is None):
            raise ConfigurationError("shorten=True needs protocol='openai' and the dimension to ask for.")
        self._dimension, self._template, self._cache = dimension, template, cache
        self._probe = None if probe is None else _checked_probe(probe, dimension)
        self._asking = Asking(
            protocol=PROTOCOLS[protocol],
            url=SecretStr(endpoint),
            host=host,
            key=bearer,
            model=model,
            dimension=dimension,
            shorten=shorten,
            probe=self._input(*PROBE_TEXT),
            limits=limits or Limits(),
        )
        self._label = f"RemoteEncoder({host!r}, protocol={protocol!r}, model={model!r})"
        #: Of what shapes the vectors, not of the address: the same model may be served elsewhere.
        self.fingerprint = digest(["remote", protocol, model, template, dimension if shorten else None])
        # By process: after a fork the parent's connections stay here untouched, and the child makes its own.
        self._lines: dict[int, Connection] = {}
        self._closed = False

    def __repr__(self) -> str:
        return self._label

    @property
    def dimension(self) -> int:
        """D, the length of an embedding; asks the server where nobody has said it yet.

        Raises:
            EncoderError: the server does not answer.
            BundleMismatchError: it runs another model.
        """
        return self._dimension if self._dimension is not None else len(self.probe_vector())

    def probe_vector(self) -> NDArray[np.float32]:
        """The vector [D] of ``PROBE_TEXT``, for whoever wants to give it as ``probe`` later, as a bundle does.

        Raises:
            EncoderError: the server does not answer.
            BundleMismatchError: it runs another model.
        """
        line = self._line()
        known = line.submit(line.verified).result() if line.known is None else line.known
        return known.copy()

    def encode(self, texts: Sequence[tuple[str | None, str]]) -> NDArray[np.float32]:
        """Encodes (prompt or ``None``, response) pairs: n of them -> [n, D].

        Raises:
            InvalidInputError: a text is not valid Unicode.
            EncoderError: the server does not answer, or with something else than vectors; or the cache is damaged.
            ConfigurationError: address, key or the cache's path is wrong.
            BundleMismatchError: the server runs another model than it did.
        """
        line = self._line()
        rows: dict[bytes, list[int]] = {}
        for index, (prompt, response) in enumerate(texts):
            try:
                rows.setdefault(key(self.fingerprint, prompt, response), []).append(index)
            except UnicodeEncodeError:
                raise InvalidInputError(f"Text {index} holds a lone surrogate: it is not valid Unicode.") from None
        found = line.cache.get(rows, self.dimension) if line.cache else {}
        missing = [name for name in rows if name not in found]
        inputs = [self._input(*texts[rows[name][0]]) for name in missing]
        found.update(self._fetched(line, missing, inputs))
        out = np.empty((len(texts), self.dimension), np.float32)
        for name, indices in rows.items():
            out[indices] = found[name]
        return out

    def close(self) -> None:
        """Closes connections and cache of this process; work under way in other threads ends with an error."""
        self._closed = True
        line = self._lines.pop(os.getpid(), None)
        if line is not None:
            line.close()

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

    def _fetched(self, line: Connection, names: list[bytes], inputs: list[Input]) -> dict[bytes, NDArray[np.float32]]:
        """The vectors [D] of inputs, by name; each batch is cached as it comes: a failure loses none before it.

        Few batches wait at a time, so that other threads' calls come in between those of a long one.
        """
        size = 1 if self._template is None else line.batch_size
        most, refusals = 2 * self._asking.limits.concurrency, line.refusals
        found: dict[bytes, NDArray[np.float32]] = {}
        sent: deque[tuple[int, Future[NDArray[np.float32]]]] = deque()
        ahead = iter(range(0, len(inputs), size))
        try:
            while True:
                for start in islice(ahead, most - len(sent)):
                    sent.append((start, line.submit(line.vectors, inputs[start : start + size])))
                if not sent:
                    return found
                start, future = sent.popleft()
                fresh = dict(zip(names[start : start + size], future.result(), strict=True))
                found.update(line.release(fresh, refusals))
        finally:
            for _, future in sent:
                future.cancel()

    def _line(self) -> Connection:
        from mrm_sdk.encoders.remote.connection import Connection
        from mrm_sdk.encoders.remote.transport import CLOSED

        if self._closed:
            raise EncoderError(CLOSED)
        line = self._lines.get(os.getpid())
        if line is None:
            cache = None if self._cache is None else VectorCache(self._cache, self.fingerprint)
            try:
                fresh = Connection(self._asking, cache, self._probe)
            except BaseException:
                if cache:
                    cache.close()
                raise
            # Two threads may both get here once. A lock instead could be left locked by a fork.
            line = self._lines.setdefault(os.getpid(), fresh)
            if line is not fresh:
                fresh.close()
        return line


def _endpoint(url: str, path: str) -> tuple[str, str]:
    """The address of an endpoint, and its host for messages, from an address with or without ``path`` or ``/v1``."""
    import httpx

    try:
        parts = urlsplit(url.strip())
        asked = httpx.URL(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))
        # What would fail in the middle of a request: a host's name that httpx cannot decode, or sockets not encode.
        valid = parts.scheme in ("http", "https") and bool(asked.host) and parts.port != 0
        asked.raw_host.decode("ascii").encode("idna")
    except (ValueError, httpx.InvalidURL):
        valid = False
    if not valid:  # not quoted: it may hold a password
        raise ConfigurationError("The server's url must look like http://host:8000 or https://host/v1.")
    base = parts.path.rstrip("/")
    # An endpoint that lives elsewhere, as gateways have it, is given whole.
    if not base.endswith(path[path.rindex("/") :]):
        base = base.removesuffix("/v1") + path
    return urlunsplit(parts._replace(path=base, fragment="")), parts.netloc.rpartition("@")[2]


def _text(value: str | SecretStr) -> str:
    """What a secret holds; of what is neither text nor secret nothing, which no check lets pass."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    return text if isinstance(text, str) else ""


def _checked_key(api_key: str | SecretStr) -> str:
    key = _text(api_key).strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError("api_key must be one word of printable ASCII characters; leave it out for no key.")
    return key


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
