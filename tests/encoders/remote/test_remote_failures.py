"""The remote encoder when servers fail: retries, waits, limits, closing, and what errors tell and do not tell."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrm_sdk.encoders.remote.encoder import Limits, RemoteEncoder
from mrm_sdk.encoders.remote.transport import backoff, error_code, retry_after
from mrm_sdk.errors import ConfigurationError, EncoderError, MrmError, TextRefusedError
from tests.encoders.remote.servers import EmbeddingServer, Reply, Request, vector

FAST = Limits(backoff=0, longest_wait=0, retries=2, timeout=20)
SECRET, TEXT = "hunter2", "what a user wrote in confidence"


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as server:
        yield server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vectors.db"


def remote(server: EmbeddingServer, **arguments: Any) -> RemoteEncoder:
    encoder = RemoteEncoder(server.url, **{"protocol": "openai", "model": "tiny", "limits": FAST, **arguments})
    assert encoder.dimension == 8
    server.requests.clear()
    return encoder


@pytest.mark.parametrize(
    "failure",
    [
        *(Reply(status) for status in (408, 424, 429, 500, 502, 503, 504)),
        Reply(429, headers={"Retry-After": "3600"}),
        Reply(503, headers={"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}),
        Reply(503, headers={"Retry-After": "soon"}),
        Reply(503, headers={"Retry-After": f"Fri, 31 Dec 2100 23:59:59 +{'9' * 30}"}),
        Reply(drop=True),
        Reply(body=b"{}", headers={"Content-Length": "100", "Connection": "close"}),  # ends in the middle
    ],
    ids=lambda failure: f"{failure.status}{' drop' * failure.drop}{failure.headers or ''}",
)
def test_what_may_pass_is_tried_again(server: EmbeddingServer, failure: Reply) -> None:
    with remote(server) as encoder:
        server.script.extend([failure, failure])
        np.testing.assert_allclose(encoder.encode([(None, "a")]), [vector("a")], rtol=1e-6)
    assert len(server.requests) == 3


def test_a_server_that_keeps_failing(server: EmbeddingServer) -> None:
    with remote(server) as encoder:
        server.script.extend([Reply(503)] * 3)
        with pytest.raises(EncoderError, match=r"127\.0\.0\.1:\d+ answered 503, in each of 3 attempts\. Check that"):
            encoder.encode([(None, "a")])
        assert encoder.encode([(None, "a")]).shape == (1, 8)


def test_a_slow_server(server: EmbeddingServer) -> None:
    with remote(server, limits=Limits(timeout=0.2, retries=1, backoff=0)) as encoder:
        server.script.extend([Reply(hold=True)] * 2)
        with pytest.raises(EncoderError, match=r"did not answer within 0\.2 s, in each of 2 attempts"):
            encoder.encode([(None, "a")])


def test_no_server_at_all(server: EmbeddingServer) -> None:
    with EmbeddingServer() as gone:
        url = gone.url
    with (
        RemoteEncoder(url, protocol="tei", model="tiny", limits=FAST) as encoder,
        pytest.raises(EncoderError, match="cannot be reached"),
    ):
        encoder.encode([(None, "a")])


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (400, TextRefusedError, r"does not take this text \(400\)\. Shorten it, or raise the server's limit\.$"),
        (401, ConfigurationError, "refuses the key"),
        (
            403,
            TextRefusedError,
            r"does not take this text \(403\)\. A filter stops it: change or leave out the text\.$",
        ),
        (451, TextRefusedError, r"does not take this text \(451\)\. A filter stops it"),
        (404, ConfigurationError, "for /v1/embeddings: check address"),
        (405, ConfigurationError, "for /v1/embeddings: check address"),
        (409, EncoderError, "answered 409"),
        (413, TextRefusedError, r"\(413\)\. Shorten it"),
        (422, TextRefusedError, r"\(422\)\. Shorten it"),
        (501, EncoderError, "answered 501"),
    ],
)
def test_what_would_fail_again_is_not_tried_again(
    server: EmbeddingServer, status: int, error: type[MrmError], message: str
) -> None:
    with remote(server) as encoder:
        server.script.append(Reply(status))
        with pytest.raises(error, match=message):
            encoder.encode([(None, "a")])
    # Before a text is held to be at fault, the server must take the probe.
    assert len(server.requests) == (2 if error is TextRefusedError else 1)


def test_an_empty_account_is_not_asked_again(server: EmbeddingServer) -> None:
    with remote(server) as encoder:
        server.script.append(Reply(429, b'{"error": {"code": "insufficient_quota"}}'))
        with pytest.raises(EncoderError, match=r"answered 429 \(insufficient_quota\)"):
            encoder.encode([(None, "a")])
    assert len(server.requests) == 1


def test_a_redirect_is_not_followed_with_the_key(server: EmbeddingServer) -> None:
    with EmbeddingServer() as other, remote(server, api_key=SECRET) as encoder:
        server.script.append(Reply(307, headers={"Location": f"{other.url}/v1/embeddings"}))
        with pytest.raises(ConfigurationError, match="a redirect, which is not followed"):
            encoder.encode([(None, TEXT)])
        assert not other.requests


def test_a_redirect_to_what_is_no_host(server: EmbeddingServer) -> None:
    with remote(server) as encoder:
        server.script.append(Reply(307, headers={"Location": "http://xn--a/"}))
        with pytest.raises(EncoderError, match="sent an answer that cannot be read"):
            encoder.encode([(None, TEXT)])


def test_one_failed_batch_fails_the_call_and_what_came_before_is_cached(server: EmbeddingServer, path: Path) -> None:
    pairs = [(None, f"text {n}") for n in range(40)]
    limits = Limits(batch_size=4, retries=0, concurrency=1, backoff=0)
    with remote(server, limits=limits, cache=path) as encoder:
        server.during = lambda request: server.script.append(Reply(400)) if "text 20" in request.inputs else None
        with pytest.raises(EncoderError, match="Text 20 of this call is refused"):
            encoder.encode(pairs)
        server.during = lambda _request: None
        server.requests.clear()
        np.testing.assert_allclose(encoder.encode(pairs), [vector(text) for _, text in pairs], rtol=1e-6)
    assert "text 19" not in server.sent
    assert "text 20" in server.sent


@pytest.mark.parametrize("status", [400, 401, 413, 429, 500])
def test_neither_key_nor_text_is_told(server: EmbeddingServer, status: int, caplog: pytest.LogCaptureFixture) -> None:
    # Servers quote what they were sent, and some of them the key.
    told = f'{{"error": {{"message": "{TEXT} {SECRET}", "code": "{TEXT}", "type": "invalid_request"}}}}'
    url = server.url.replace("http://", f"http://someone:{SECRET}@")
    with caplog.at_level(logging.DEBUG), RemoteEncoder(url, protocol="openai", model="tiny", limits=FAST) as encoder:
        assert encoder.dimension == 8
        assert server.requests[0].headers["authorization"].startswith("Basic ")
        server.script.extend([Reply(status, told.encode(), {"Retry-After": "0"})] * 3)
        with pytest.raises(MrmError) as caught:
            encoder.encode([(TEXT, TEXT)])
        shown = f"{caught.value!r} {caught.value} {encoder!r} {vars(encoder)} {caplog.text}"
    assert "invalid_request" in shown or status == 413
    assert SECRET not in shown
    assert TEXT not in shown


def test_a_key_in_the_query_is_sent_and_not_logged(server: EmbeddingServer, caplog: pytest.LogCaptureFixture) -> None:
    url = f"{server.url}/v1?api-key={SECRET}&api-version=1"
    with caplog.at_level(logging.DEBUG), RemoteEncoder(url, protocol="openai", model="tiny", limits=FAST) as encoder:
        server.script.extend([Reply(body=b'{"data": [{"index": 0, "embedding": [1, 2]}]}')] * 2 + [Reply(404)])
        assert encoder.encode([(None, "a")]).shape == (1, 2)
        with pytest.raises(ConfigurationError, match="for /v1/embeddings: check address") as caught:
            encoder.encode([(None, "b")])
        shown = f"{caught.value!r} {encoder!r} {vars(encoder)} {vars(encoder._connection()._client)} {caplog.text}"
    assert {request.path for request in server.requests} == {f"/v1/embeddings?api-key={SECRET}&api-version=1"}
    assert f'HTTP Request: POST {server.url}/v1/embeddings "HTTP/1.1 200 OK"' in caplog.text
    assert SECRET not in shown


def test_a_short_call_comes_in_between_the_batches_of_a_long_one(server: EmbeddingServer) -> None:
    held, go = threading.Event(), threading.Event()

    def during(request: Request) -> None:
        if request.inputs == ["long 0"]:
            held.set()
            go.wait(20)

    server.during = during
    with remote(server, limits=Limits(batch_size=1, concurrency=1, backoff=0)) as encoder:
        line = encoder._connection()
        submit = line.submit

        def submitted(work: Any, inputs: list[Any]) -> Any:
            future = submit(work, inputs)
            if inputs == ["short"]:
                go.set()  # only now does the server go on with the long call
            return future

        line.submit = submitted
        pairs = [(None, f"long {n}") for n in range(40)]
        results: list[Any] = []
        thread = threading.Thread(target=lambda: results.append(encoder.encode(pairs)))
        thread.start()
        assert held.wait(20)
        np.testing.assert_allclose(encoder.encode([(None, "short")]), [vector("short")], rtol=1e-6)
        thread.join(20)
    np.testing.assert_allclose(results[0], [vector(text) for _, text in pairs], rtol=1e-6)
    assert server.sent.index("short") <= 2


def test_the_limit_on_concurrency_is_held_over_all_threads(server: EmbeddingServer) -> None:
    together = threading.Barrier(3)

    def meet(request: Request) -> None:
        if any("text" in text for text in request.inputs):
            together.wait(20)  # passes only when three are under way, so three there are

    server.during = meet
    with remote(server, limits=Limits(batch_size=2, concurrency=3, backoff=0)) as encoder:
        results: dict[int, Any] = {}

        def encode(thread: int) -> None:
            results[thread] = encoder.encode([(None, f"text {thread} {n}") for n in range(12)])

        threads = [threading.Thread(target=encode, args=(thread,)) for thread in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert server.peak == 3
    assert len(server.requests) == 18
    for thread, encoded in results.items():
        np.testing.assert_allclose(encoded, [vector(f"text {thread} {n}") for n in range(12)], rtol=1e-6)


def test_closing(server: EmbeddingServer) -> None:
    encoder = remote(server)
    encoder.close()
    encoder.close()
    with pytest.raises(EncoderError, match="closed; make a new one"):
        encoder.encode([(None, "a")])


def test_closing_ends_what_waits_for_another_attempt(server: EmbeddingServer) -> None:
    encoder = remote(server, limits=Limits(backoff=3600, longest_wait=3600, retries=1, concurrency=1, batch_size=1))
    server.script.append(Reply(503, headers={"Retry-After": "3600"}))
    asked, failed = threading.Event(), []
    server.during = lambda _request: asked.set()

    def encode() -> None:
        try:
            encoder.encode([(None, "a"), (None, "b"), (None, "c")])
        except MrmError as error:
            failed.append(str(error))

    thread = threading.Thread(target=encode)
    thread.start()
    assert asked.wait(20)
    encoder.close()
    thread.join(20)
    assert not thread.is_alive()
    assert failed == ["This encoder was closed; make a new one."]


def test_waits_double_are_random_and_never_too_long() -> None:
    limits = Limits(backoff=2, longest_wait=60)
    for attempt, most in ((1, 2), (2, 4), (3, 8), (10, 60), (10_000, 60)):
        waits = [backoff(attempt, None, limits) for _ in range(200)]
        assert 0 <= min(waits) < most / 4
        assert most * 3 / 4 < max(waits) <= most
    assert 5 <= backoff(1, 5, limits) <= 7
    assert backoff(1, 1e9, limits) == 60
    assert backoff(3, 7, Limits(backoff=0)) == 7


def test_retry_after_in_both_forms() -> None:
    now = datetime(2026, 11, 1, 12, 0, 0, tzinfo=UTC)
    read = {
        "0": 0.0, "120": 120.0, " 7 ": 7.0, "": None, "-3": None, "1.5": None, "soon": None, "٣": None,
        "Sun, 01 Nov 2026 12:00:30 GMT": 30.0,
        "Sun, 01 Nov 2026 12:00:30 -0000": 30.0,
        "Sun, 01 Nov 2026 11:00:00 GMT": 0.0,
        f"Sun, 01 Nov 2026 12:00:30 +{'9' * 30}": None,
    }  # fmt: skip
    assert {value: retry_after({"retry-after": value}, now) for value in read} == read
    assert retry_after({}, now) is None


def test_codes_are_words_and_nothing_else() -> None:
    read = {
        b'{"error": {"code": "model_not_found", "type": "x"}}': "model_not_found",
        b'{"error": {"code": 400, "type": "BadRequestError"}}': "BadRequestError",
        b'{"error": "batch size", "error_type": "Validation"}': "Validation",
        b'{"object": "error", "type": "invalid"}': "invalid",
        b'{"error": {"code": "sk-1234"}}': "",
        b'{"error": {"code": "two words"}}': "",
        b"[]": "", b"null": "", b"<html>": "", b"": "", b"\xff": "", b"[" * 100_000: "",
    }  # fmt: skip
    assert {body: error_code(body) for body in read} == read


def test_a_relative_cache_is_in_the_folder_at_the_start(
    server: EmbeddingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    encoder = RemoteEncoder(server.url, protocol="openai", model="tiny", limits=FAST, cache="vectors.db")
    monkeypatch.chdir(tmp_path / "other")
    encoder.encode([(None, TEXT)])
    encoder.close()
    assert (tmp_path / "vectors.db").is_file()
    assert not list((tmp_path / "other").iterdir())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("NO_PROXY", "localhost,[::1]", "InvalidURL"),
        ("no_proxy", "fe80::/10", "InvalidURL"),
        ("ALL_PROXY", "socks5://127.0.0.1:9", r"ImportError.*pip install 'httpx\[socks\]'"),
        ("ALL_PROXY", f"socks://user:{SECRET}@127.0.0.1:9", "ValueError"),
        ("HTTP_PROXY", "http://127.0.0.1:port", "InvalidURL"),
        ("SSL_CERT_FILE", "/nowhere.pem", "FileNotFoundError"),
        ("SSL_CERT_FILE", "/dev/null", "SSLError"),
    ],
)
def test_variables_that_httpx_and_ssl_reject(
    name: str, value: str, said: str, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(other, raising=False)
        monkeypatch.delenv(other.lower(), raising=False)
    monkeypatch.setenv(name, value)
    encoder = RemoteEncoder(server.url, protocol="openai", model="tiny", limits=FAST)
    with pytest.raises(ConfigurationError, match=f"{name} names .* cannot be used .*{said}") as caught:
        encoder.encode([(None, TEXT)])
    assert SECRET not in str(caught.value)
    assert not server.requests
