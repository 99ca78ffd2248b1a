"""One text that a server refuses: the others of its request are encoded, and the server itself is not blamed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrm_sdk.encoders.base import embed
from mrm_sdk.encoders.remote.encoder import Limits, RemoteEncoder
from mrm_sdk.errors import ConfigurationError, EncoderError, MrmError, TextRefusedError
from mrm_sdk.schemas.items import Item
from tests.encoders.remote.servers import EmbeddingServer, Reply, vector

FAST = Limits(backoff=0, longest_wait=0, retries=2, timeout=20)
PAIRS = [(None, f"text {n}") for n in range(100)]
BAD = (7, 8, 55)


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as server:
        yield server


def remote(server: EmbeddingServer, **arguments: Any) -> RemoteEncoder:
    return RemoteEncoder(server.url, **{"protocol": "openai", "model": "tiny", "limits": FAST, **arguments})


def openai(message: str, code: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error", "code": code}}).encode()


REFUSALS = {
    "openai": Reply(400, openai("maximum context length is 8192 tokens", "context_length_exceeded")),
    "azure's filter": Reply(400, openai("filtered", "content_filter")),
    "tei": Reply(
        413, b'{"error": "Input validation error: must have less than 512 tokens", "error_type": "Validation"}'
    ),
    "fastapi": Reply(422, b'{"detail": [{"loc": ["body", "input", 0], "msg": "string too long"}]}'),
    "a proxy": Reply(413, b"<html>Request Entity Too Large</html>"),
    "llama.cpp": Reply(
        500, b'{"error": {"code": 500, "message": "input is too large to process", "type": "server_error"}}'
    ),
    "ollama": Reply(500, b'{"error": "failed to encode response: json: unsupported value: NaN"}'),
    "a firewall": Reply(403, b"<html>Forbidden</html>"),
    "a censor": Reply(451),
    "a crash": Reply(500, b"Internal Server Error"),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_the_others_are_encoded_and_cached(server: EmbeddingServer, refusal: Reply, tmp_path: Path) -> None:
    bad = {PAIRS[i][1] for i in BAD}
    server.refuse = lambda text: refusal if text in bad else None
    with remote(server, cache=tmp_path / "vectors.db") as encoder:
        assert encoder.dimension == 8
        with pytest.raises(TextRefusedError) as caught:
            encoder.encode(PAIRS)
        assert set(caught.value.reasons) == set(BAD)
        for reason in caught.value.reasons.values():
            assert re.match(rf"127\.0\.0\.1:\d+ does not take this text \({refusal.status}\b", reason)
            assert "Check" not in reason  # nothing is wrong with the server
        server.requests.clear()
        good = [pair for i, pair in enumerate(PAIRS) if i not in BAD]
        np.testing.assert_allclose(encoder.encode(good), [vector(text) for _, text in good], rtol=1e-6)
        assert not server.requests  # nothing is paid for twice


def test_a_refused_text_costs_few_requests(server: EmbeddingServer) -> None:
    server.refuse = lambda text: REFUSALS["openai"] if text == "text 7" else None
    with remote(server) as encoder, pytest.raises(TextRefusedError):
        encoder.encode(PAIRS)
    # Four batches of at most 32; of the one that is refused, two halves at each of five levels; the probe twice.
    assert len(server.requests) == 4 + 2 * 5 + 2


def test_without_a_cache_no_text_is_sent_twice(server: EmbeddingServer) -> None:
    server.refuse = lambda text: REFUSALS["openai"] if text == "text 7" else None
    refused: dict[int, str] = {}
    with remote(server) as encoder:
        encoded = embed(encoder, [Item(prompt, text, None) for prompt, text in PAIRS], refused)
    assert set(refused) == {7}
    np.testing.assert_allclose(np.delete(encoded, 7, 0), [vector(text) for _, text in PAIRS if text != "text 7"])
    assert len(server.requests) == 4 + 2 * 5 + 2  # as above


@pytest.mark.parametrize("nothing", [None, [None] * 8, [float("nan")] * 8, [1e39] * 8])
def test_a_vector_that_is_none(server: EmbeddingServer, nothing: Any) -> None:
    def spoil(answer: Any) -> Any:
        (bad,) = vector("text 7")[None].tolist()
        rows = [
            {**row, "embedding": nothing if row["embedding"] == bad else row["embedding"]} for row in answer["data"]
        ]
        return {"data": rows}

    server.change = spoil
    with remote(server) as encoder, pytest.raises(TextRefusedError) as caught:
        encoder.encode(PAIRS)
    assert set(caught.value.reasons) == {7}
    assert "returns NaN or infinity for this text. Shorten or leave out the text" in caught.value.reasons[7]


def test_a_server_that_refuses_everything_is_at_fault_itself(server: EmbeddingServer) -> None:
    with remote(server) as encoder:
        assert encoder.dimension == 8
        server.requests.clear()
        server.refuse = lambda _text: Reply(400, openai("no such model any more"))
        with pytest.raises(EncoderError, match="answered 400") as caught:
            encoder.encode(PAIRS[:32])
        assert not isinstance(caught.value, TextRefusedError)
        assert len(server.requests) == 6 + 1  # down to one text, and the probe


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        (Reply(403), ConfigurationError, "answered 403: it refuses the key. Check api_key"),
        (Reply(451), EncoderError, "answered 451, which trying again would not change"),
        (Reply(413), EncoderError, "answered 413: the request is too large"),
        (Reply(500), EncoderError, "answered 500, in each of 3 attempts. Check that the server runs"),
    ],
    ids=lambda value: str(getattr(value, "status", "")),
)
@pytest.mark.parametrize("known", [False, True])
def test_whatever_the_server_says_to_the_probe_too_is_about_all_texts(
    server: EmbeddingServer, reply: Reply, error: type[MrmError], message: str, known: bool
) -> None:
    with remote(server, dimension=8) as encoder:
        if known:
            encoder.encode([(None, "before")])
        server.refuse = lambda _text: reply
        with pytest.raises(error, match=re.escape(message)) as caught:
            encoder.encode(PAIRS[:2])
        assert not isinstance(caught.value, TextRefusedError)
        assert "this text" not in str(caught.value)


def test_a_reason_says_what_to_do(server: EmbeddingServer) -> None:
    advised = {
        "openai": r"take this text \(400, context_length_exceeded\)\. Shorten it, or raise the server's limit\.",
        "azure's filter": r"\(400, content_filter\)\. A filter stops it: change or leave out the text\.",
        "tei": r"\(413, Validation\)\. Shorten it",
        "llama.cpp": r"\(500, server_error\)\. Shorten or leave out the text",
        "a crash": r"\(500, 3 times\)\. Shorten or leave out the text; the server's own log says more\.",
    }
    with remote(server) as encoder:
        for name, reason in advised.items():
            server.refuse = lambda text, name=name: REFUSALS[name] if text == "bad" else None
            with pytest.raises(TextRefusedError) as caught:
                encoder.encode([(None, "good"), (None, "bad")])
            assert re.search(reason, caught.value.reasons[1])


def test_a_server_that_dies_meanwhile_is_no_refusal(server: EmbeddingServer) -> None:
    with remote(server) as encoder:
        assert encoder.dimension == 8
        server.script.extend([Reply(400), *[Reply(503)] * 3])
        with pytest.raises(EncoderError, match="answered 503, in each of 3 attempts") as caught:
            encoder.encode(PAIRS[:2])
        assert not isinstance(caught.value, TextRefusedError)


@pytest.mark.parametrize(
    ("host", "header"),
    [
        ("mine.openai.azure.com", "api-key"),
        ("mine.openai.azure.us:443", "api-key"),
        ("mine.services.ai.azure.com", "api-key"),
        ("MINE.cognitiveservices.azure.com", "api-key"),
        ("gateway.azure-api.net", "api-key"),
        ("mine.eastus.inference.ml.azure.com", "Authorization"),
        ("api.openai.com", "Authorization"),
        ("openai.azure.com.example.org", "Authorization"),
    ],
)
def test_azures_header(host: str, header: str) -> None:
    encoder = RemoteEncoder(f"https://{host}/openai/v1", protocol="openai", model="tiny", api_key="sesame")
    assert encoder._endpoint.key_header == header


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("api-key", {"api-key": "sesame"}),
        ("Ocp-Apim-Subscription-Key", {"ocp-apim-subscription-key": "sesame"}),
        ("authorization", {"authorization": "Bearer sesame"}),
        (None, {"authorization": "Bearer sesame"}),
    ],
)
def test_a_key_in_another_header(server: EmbeddingServer, name: str | None, sent: dict[str, str]) -> None:
    with remote(server, api_key="sesame", api_key_header=name) as encoder:
        assert encoder.dimension == 8
    headers = server.requests[0].headers
    assert {header: value for header, value in headers.items() if "sesame" in value} == sent


@pytest.mark.parametrize("name", ["", "two words", "a:b", "line\nbreak", 7, "ü"])
def test_what_is_no_header(server: EmbeddingServer, name: Any) -> None:
    with pytest.raises(ConfigurationError, match="api_key_header must be the name of a header"):
        remote(server, api_key="sesame", api_key_header=name)


def test_what_took_too_long_once_is_asked_again(server: EmbeddingServer) -> None:
    slow = [Reply(500, b'{"error": {"message": "inference took too long"}}')]
    server.refuse = lambda text: slow.pop() if slow and text == PAIRS[7][1] else None
    with remote(server, dimension=8) as encoder:
        np.testing.assert_array_equal(encoder.encode([PAIRS[7]]), [vector(PAIRS[7][1])])
    assert not slow
