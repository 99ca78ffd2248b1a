"""HTTP requests with retries, waits and errors of ours.

Neither the key nor any text reaches a message or a log: of a server's own error only its one-word code is shown,
because servers quote what they were sent.
"""

from __future__ import annotations

import email.utils
import json
import os
import random
import re
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx

from mrm_sdk.encoders.remote.endpoint import Endpoint
from mrm_sdk.encoders.remote.limits import Limits
from mrm_sdk.encoders.remote.refusal import RequestRefusedError
from mrm_sdk.errors import ConfigurationError, EncoderError

CLOSED: Final = "This encoder was closed; make a new one."

# 424: text-embeddings-inference, when its own backend failed.
RETRIED: Final = frozenset({408, 424, 429, 500, 502, 503, 504})
_CODE = re.compile(r"[A-Za-z_]{1,40}")
# For what is in the request: a text too long, too many texts; or a filter, also one in front of the server (403, 451).
REFUSED: Final = frozenset({400, 403, 413, 422, 451})
# In one of these from various servers when a request has too many texts.
_TOO_MANY = re.compile(rb"batch[ _]size|submitted batch|tokens per request|array too long", re.IGNORECASE)
# In a 500: llama.cpp's and older Ollama's word for a text that is too long, and Ollama's for a vector that is NaN; but
# what took too long may be quicker the next time.
_UNFIT = re.compile(rb"(?<!took )(?<!taking )too (large|long)|context length|unsupported value: nan", re.IGNORECASE)


# httpx and ssl read these; other spellings of the same ones count too.
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def _wrong_variable(names: Sequence[str], what: str, error: Exception) -> ConfigurationError:
    """Names what is set; its value stays out of the message, for a proxy's may hold a password."""
    variables = [name for name in os.environ if name.upper() in names and os.environ[name]]
    named = " or ".join(variables) or "the system's settings"
    reason = "; for a SOCKS proxy: pip install 'httpx[socks]'" if isinstance(error, ImportError) else ""
    return ConfigurationError(
        f"{named} names {what} that cannot be used ({type(error).__name__}). Correct or unset it{reason}."
    )


class _MaskedUrl(httpx.URL):
    """A URL that is sent whole and shown without its query, in which some gateways expect a key."""

    def __str__(self) -> str:
        return str(self.copy_with(query=None))

    def __repr__(self) -> str:
        return repr(str(self))


class RetryingClient:
    """POSTs JSON to one address, from any thread of one process.

    Args:
        endpoint: address, key, timeouts and retries; user and password in the address become basic authentication.

    Raises:
        ConfigurationError: a variable of the environment names a proxy or certificates that cannot be used.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        parts = urlsplit(endpoint.url.get_secret_value())
        # httpx logs URLs: this one holds no password, and hides its query.
        self._url = _MaskedUrl(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))
        self._host, self._limits = endpoint.host, endpoint.limits
        self._closing = threading.Event()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if endpoint.key is not None:
            key, is_bearer = endpoint.key.get_secret_value(), endpoint.key_header == "Authorization"
            headers[endpoint.key_header] = f"Bearer {key}" if is_bearer else key
        try:
            self._client = httpx.Client(
                headers=headers,
                auth=(unquote(parts.username), unquote(parts.password or "")) if parts.username else None,
                timeout=endpoint.limits.timeout,
                limits=httpx.Limits(max_connections=endpoint.limits.concurrency),
                # A redirect would carry users' texts to a server that the host did not name.
                follow_redirects=False,
            )
        except OSError as error:  # ssl's errors are some
            raise _wrong_variable(_CERTIFICATES, "certificates", error) from None
        except (httpx.InvalidURL, ImportError, ValueError) as error:
            raise _wrong_variable(_PROXIES, "a proxy", error) from None

    def post(self, body: bytes) -> bytes:
        """Sends ``body`` and returns the answer's, after as many attempts as the limits allow.

        Raises:
            RequestRefusedError: the server refuses what is in the request, or fails with nothing but this.
            ConfigurationError: the address or the key is wrong.
            EncoderError: the server cannot be reached, or refuses, or keeps failing.
        """
        failure, status, code, requested_wait = "", 0, "", None
        for attempt in range(self._limits.retries + 1):
            if attempt and self._closing.wait(backoff(attempt, requested_wait, self._limits)):
                break
            status, requested_wait = 0, None
            try:
                request = self._client.build_request("POST", self._url, content=body)
                request.url = self._url  # build_request copies it into a plain URL
                response = self._client.send(request)
            except httpx.TimeoutException:
                failure = f"did not answer within {self._limits.timeout:g} s"
            except httpx.ConnectError as error:
                failure = f"cannot be reached ({error})"
            except httpx.TransportError as error:
                failure = f"broke off ({type(error).__name__})"
            except (httpx.HTTPError, UnicodeError) as error:  # UnicodeError: a redirect to an invalid host
                raise EncoderError(f"{self._host} sent an answer that cannot be read: {type(error).__name__}") from None
            except RuntimeError:  # the client was closed by another thread
                break
            else:
                if response.is_success:
                    return response.content
                status, code = response.status_code, error_code(response.content)
                failure = f"answered {status}{f' ({code})' if code else ''}"
                is_unfit = status == 500 and bool(_UNFIT.search(response.content))
                if status not in RETRIED or is_unfit or code == "insufficient_quota":
                    raise self._refusal(response, failure, code, is_unfit=is_unfit)
                requested_wait = retry_after(response.headers, datetime.now(UTC))
        else:
            attempts = self._limits.retries + 1
            for_all = EncoderError(
                f"{self._host} {failure}, in each of {attempts} attempts. Check that the server runs and is not "
                "overloaded; Limits(concurrency=…, timeout=…, retries=…) set how hard it is tried."
            )
            if status == 500:
                # With a text that crashes the model's code a server answers so each time, while other texts pass.
                raise RequestRefusedError(self._reason(status, code, f", {attempts} times"), for_all)
            raise for_all
        raise EncoderError(CLOSED)

    def close(self) -> None:
        """Closes the connections; a request that waits for its next attempt gives up."""
        self._closing.set()
        self._client.close()

    def _refusal(
        self, response: httpx.Response, failure: str, code: str, *, is_unfit: bool
    ) -> EncoderError | ConfigurationError:
        """The error of an answer that trying again would not change."""
        status = response.status_code
        many = status in REFUSED and bool(_TOO_MANY.search(response.content))
        if status == 413 or many or is_unfit:
            advice = "Shorten the texts, or raise the server's limit on a request."
            for_all: EncoderError | ConfigurationError = EncoderError(
                f"{self._host} {failure}: the request is too large. {advice}"
            )
        else:
            for_all = self._error(status, failure)
        if status in REFUSED or is_unfit:
            return RequestRefusedError(self._reason(status, code), for_all, by_count=many)
        return for_all

    def _reason(self, status: int, code: str, times: str = "") -> str:
        """Why a text is refused, if others pass, and what to do."""
        if status in (403, 451) or "filter" in code or "policy" in code:
            advice = "A filter stops it: change or leave out the text."
        elif status == 500:
            advice = "Shorten or leave out the text; the server's own log says more."
        else:
            advice = "Shorten it, or raise the server's limit."
        return f"{self._host} does not take this text ({status}{f', {code}' if code else ''}{times}). {advice}"

    def _error(self, status: int, failure: str) -> EncoderError | ConfigurationError:
        """What a status means, if it is not about the texts."""
        host = self._host
        if status in (401, 403, 407):
            return ConfigurationError(f"{host} {failure}: it refuses the key. Check api_key, and what the key may do.")
        if status in (404, 405):
            return ConfigurationError(
                f"{host} {failure} for {self._url.path}: check address, protocol and the model's name."
            )
        if 300 <= status < 400:
            return ConfigurationError(f"{host} {failure}, a redirect, which is not followed: give the final address.")
        return EncoderError(
            f"{host} {failure}, which trying again would not change. Check the model's name and that no text is longer "
            "than it takes; the server's own log says more."
        )


def backoff(attempt: int, requested: float | None, limits: Limits) -> float:
    """Seconds to wait before an attempt (1 is the first repetition).

    What the server asked for plus a random share of a span that doubles (full jitter), so that the clients of a server
    that failed do not all return at once. Never longer than ``limits.longest_wait``.
    """
    span = min(limits.longest_wait, limits.backoff * 2.0 ** min(attempt - 1, 60))
    jitter = random.uniform(0, span)  # noqa: S311  spreads load, not a secret
    return min(limits.longest_wait, jitter if requested is None else requested + jitter)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, as a number or an HTTP date; ``None`` without a readable one."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
        return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())
    except (ValueError, OverflowError):  # OverflowError: a time zone out of range
        return None


def error_code(body: bytes) -> str:
    """The one-word code or type of a server's error, if it gives one; never its message, which may quote a text."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    error = answer.get("error") if isinstance(answer, dict) else None
    for source in (error, answer):
        for field in ("code", "type", "error_type"):
            value = source.get(field) if isinstance(source, dict) else None
            if isinstance(value, str) and _CODE.fullmatch(value):
                return value
    return ""
