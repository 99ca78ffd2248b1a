"""The remote encoder against real servers on loopback: protocols, texts, arguments, and answers that cannot be used."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from mrm_sdk.bundle.encoder_spec import PROBE_TEXT
from mrm_sdk.encoders.remote.encoder import Limits, RemoteEncoder
from mrm_sdk.errors import ConfigurationError, EncoderError, TextRefusedError
from tests.encoders.remote.servers import EmbeddingServer, Reply, vector

FAST = Limits(backoff=0, longest_wait=0, retries=2, timeout=20)
PAIRS = [("What?", "This."), (None, "alone"), ("", "no question"), ("¿Qué? 🙂", "هذا")]
TEXTS = ["What?\n\nThis.", "alone", "\n\nno question", "¿Qué? 🙂\n\nهذا"]
PATHS = {"openai": "/v1/embeddings", "vllm": "/pooling", "tei": "/embed", "sglang": "/encode"}


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as server:
        yield server


def remote(server: EmbeddingServer, **arguments: Any) -> RemoteEncoder:
    return RemoteEncoder(server.url, **{"protocol": "openai", "model": "tiny", "limits": FAST, **arguments})


@pytest.mark.parametrize("protocol", PATHS)
def test_every_protocol_encodes(server: EmbeddingServer, protocol: str) -> None:
    with remote(server, protocol=protocol) as encoder:
        assert not server.requests  # nothing is opened by making one
        assert encoder.dimension == 8
        encoded = encoder.encode(PAIRS)
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(encoded, [vector(text) for text in TEXTS], rtol=1e-6)
    probe, batch = server.requests
    assert probe.path == batch.path == PATHS[protocol]
    assert probe.inputs == ["\n\n".join(PROBE_TEXT)]
    expected = {
        "openai": {"model": "tiny", "input": TEXTS, "encoding_format": "float"},
        "vllm": {
            "model": "tiny", "input": TEXTS, "encoding_format": "float", "use_activation": False,
            "truncate_prompt_tokens": -1, "truncation_side": "left",
        },
        "tei": {"inputs": TEXTS, "normalize": False, "truncate": True, "truncation_direction": "Left"},
        "sglang": {"model": "tiny", "text": TEXTS},
    }  # fmt: skip
    assert batch.body == expected[protocol]


def test_vllm_takes_conversations_one_by_one(server: EmbeddingServer) -> None:
    prompt = "system: Be brief.\nuser: What?"
    with remote(server, protocol="vllm", template=None) as encoder:
        encoded = encoder.encode([(prompt, "This."), (None, "That.")])
    system, user = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "What?"}
    first = [system, user, {"role": "assistant", "content": "This."}]
    second = [{"role": "user", "content": ""}, {"role": "assistant", "content": "That."}]
    np.testing.assert_allclose(encoded, [vector(first), vector(second)], rtol=1e-6)
    assert len(server.requests) == 3
    assert all("input" not in request.body for request in server.requests)


def test_sglang_may_answer_one_text_without_a_list(server: EmbeddingServer) -> None:
    server.change = lambda answer: answer[0] if len(answer) == 1 else answer
    with remote(server, protocol="sglang") as encoder:
        np.testing.assert_allclose(encoder.encode([(None, "one")]), [vector("one")], rtol=1e-6)


@pytest.mark.parametrize(
    ("protocol", "suffix", "path"),
    [
        ("openai", "/", "/v1/embeddings"),
        ("openai", "/v1", "/v1/embeddings"),
        ("openai", "/v1/", "/v1/embeddings"),
        ("openai", "/v1/embeddings", "/v1/embeddings"),
        ("openai", "/gateway/v1", "/gateway/v1/embeddings"),
        ("openai", "/v1beta/openai/embeddings/", "/v1beta/openai/embeddings"),
        ("openai", "/deployments/x/embeddings?api-version=1", "/deployments/x/embeddings?api-version=1"),
        ("vllm", "/v1/", "/pooling"),
        ("tei", "/embed", "/embed"),
        ("sglang", "", "/encode"),
    ],
)
def test_addresses(server: EmbeddingServer, protocol: str, suffix: str, path: str) -> None:
    server.script.append(Reply(404))
    encoder = RemoteEncoder(server.url + suffix, protocol=protocol, model="tiny", limits=FAST)
    with encoder, pytest.raises(ConfigurationError, match="check address, protocol and the model's name"):
        encoder.probe_vector()
    assert server.requests[0].path == path


def test_nothing_to_encode(server: EmbeddingServer) -> None:
    with remote(server) as encoder:
        assert encoder.encode([]).shape == (0, 8)


def test_an_empty_text_is_sent_as_a_space(server: EmbeddingServer) -> None:
    with remote(server, template="{response}") as encoder:
        np.testing.assert_allclose(encoder.encode([(None, ""), ("why", "")]), [vector(" ")] * 2, rtol=1e-6)


def test_a_long_text_and_a_lone_surrogate(server: EmbeddingServer) -> None:
    with remote(server) as encoder:
        long = "word " * 200_000
        np.testing.assert_allclose(encoder.encode([(None, long)]), [vector(long)], rtol=1e-6)
        with pytest.raises(TextRefusedError, match="Text 1 of this call is refused: it holds a lone surrogate"):
            encoder.encode([(None, "fine"), (None, "\ud800")])


def test_braces_in_texts_and_in_the_template_are_text(server: EmbeddingServer) -> None:
    with remote(server, template='{"q": "{prompt}", "a": "{response}", "x": {}}') as encoder:
        encoder.encode([("{response}", "{prompt} {0}")])
    assert server.sent == ['{"q": "{response}", "a": "{prompt} {0}", "x": {}}']


def test_the_same_text_is_sent_once(server: EmbeddingServer) -> None:
    with remote(server) as encoder:
        encoded = encoder.encode([("a", "b"), ("c", "d"), ("a", "b")])
    assert server.sent == ["a\n\nb", "c\n\nd"]
    np.testing.assert_array_equal(encoded[0], encoded[2])


def test_batches_and_a_server_that_takes_fewer(server: EmbeddingServer) -> None:
    server.most = 5
    pairs = [(None, f"text {n}") for n in range(50)]
    limits = Limits(batch_size=20, concurrency=1, backoff=0)
    with remote(server, limits=limits) as encoder:
        np.testing.assert_allclose(encoder.encode(pairs), [vector(text) for _, text in pairs], rtol=1e-6)
        refused = [len(request.inputs) for request in server.requests if len(request.inputs) > 5]
        assert refused == [20, 10]  # found out once: later batches are cut beforehand
        encoder.encode([(None, f"more {n}") for n in range(50)])
    assert [len(request.inputs) for request in server.requests if len(request.inputs) > 5] == refused


def test_only_the_request_that_is_too_long_is_halved(server: EmbeddingServer) -> None:
    pairs = [(None, f"text {n}") for n in range(8)]
    with remote(server, limits=Limits(batch_size=4, concurrency=1, backoff=0)) as encoder:
        assert encoder.dimension == 8
        server.script.append(Reply(413, b"length limit exceeded"))
        encoder.encode(pairs)
    assert [len(request.inputs) for request in server.requests] == [1, 4, 2, 2, 4]


def test_one_text_that_is_too_long_is_an_error(server: EmbeddingServer) -> None:
    with remote(server) as encoder:
        assert encoder.dimension == 8
        server.script.append(Reply(413))
        with pytest.raises(EncoderError, match=r"does not take this text \(413\)\. Shorten it"):
            encoder.encode([(None, "long")])


def test_openai_shortens_vectors_when_asked_to(server: EmbeddingServer) -> None:
    with remote(server, dimension=8, shorten=True) as encoder:
        encoder.encode([(None, "a")])
    assert [request.body["dimensions"] for request in server.requests] == [8, 8]


def test_the_fingerprint_is_of_what_shapes_vectors() -> None:
    def fingerprint(**arguments: Any) -> str:
        options = {"url": "http://one:1", "protocol": "vllm", "model": "m", **arguments}
        return RemoteEncoder(options.pop("url"), **options).fingerprint

    same = [fingerprint(), fingerprint(url="https://two/v1"), fingerprint(dimension=4), fingerprint(api_key="k")]
    assert len({*same, fingerprint(limits=Limits(batch_size=1)), fingerprint(cache="x.db")}) == 1
    others = [
        {"protocol": "openai"},
        {"model": "n"},
        {"template": "{response}"},
        {"template": None},
        {"protocol": "openai", "dimension": 4, "shorten": True},
    ]
    assert len({same[0], *(fingerprint(**other) for other in others)}) == 6


def test_the_dimension_that_was_promised_is_held(server: EmbeddingServer) -> None:
    with remote(server, dimension=16) as encoder:
        assert encoder.dimension == 16
        assert not server.requests
        with pytest.raises(EncoderError, match="8 numbers where 16 are expected"):
            encoder.encode([(None, "a")])


UNUSABLE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "the last missing": (lambda answer: {"data": answer["data"][1:]}, "returned 1 vectors for 2 texts"),
    "the first missing": (lambda answer: {"data": answer["data"][:-1]}, "one vector per text"),
    "one too many": (
        lambda answer: {"data": [*answer["data"], {"index": len(answer["data"]), "embedding": [0.0] * 8}]},
        "returned 3 vectors for 2 texts",
    ),
    "the same index twice": (lambda answer: {"data": [answer["data"][0]] * 2}, "one vector per text"),
    "no index": (lambda answer: {"data": [{"embedding": [0.0] * 8}] * 2}, "one vector per text"),
    "no data": (lambda _answer: {"object": "list"}, "one vector per text"),
    "no object": (lambda _answer: 7, "one vector per text"),
    "shorter": (lambda answer: _every(answer, lambda row: row[:5]), "5 numbers where 8 are expected"),
    "ragged": (lambda answer: _every(answer, lambda row: row[: 5 + int(row[0] > row[1])]), "vector"),
    "NaN": (lambda answer: _every(answer, lambda row: [float("nan"), *row[1:]]), "NaN or infinity"),
    "too large for float32": (lambda answer: _every(answer, lambda row: [1e39, *row[1:]]), "NaN or infinity"),
    "nothing": (lambda answer: _every(answer, lambda _row: []), "lists of numbers"),
    "texts": (lambda answer: _every(answer, lambda row: [str(number) for number in row]), "lists of numbers"),
    "null": (lambda answer: _every(answer, lambda row: [None, *row[1:]]), "NaN or infinity"),
    "base64": (lambda answer: _every(answer, lambda _row: "AAAA"), "lists of numbers"),
    "tokens": (lambda answer: _every(answer, lambda row: [row, row]), "one vector per token"),
}


def _every(answer: Any, change: Callable[[list[float]], Any]) -> Any:
    return {"data": [{**row, "embedding": change(row["embedding"])} for row in answer["data"]]}


@pytest.mark.parametrize("name", UNUSABLE)
def test_answers_that_cannot_be_used(server: EmbeddingServer, name: str) -> None:
    change, message = UNUSABLE[name]
    with remote(server) as encoder:
        assert encoder.dimension == 8
        server.change = change
        with pytest.raises(EncoderError, match=message):
            encoder.encode([("a", "b"), ("c", "d")])
        server.change = lambda answer: answer
        assert encoder.encode([("a", "b")]).shape == (1, 8)


@pytest.mark.parametrize("body", [b"<html>", b"", b"\xff\xfe\x00", b"[" * 100_000, json.dumps([[1.0]]).encode()])
def test_answers_of_another_kind_of_server(server: EmbeddingServer, body: bytes) -> None:
    server.script.append(Reply(body=body))
    with remote(server) as encoder, pytest.raises(EncoderError, match="address and the protocol belong together"):
        encoder.encode([("a", "b")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "localhost:8000"}, "must look like http"),
        ({"url": "ftp://host"}, "must look like http"),
        ({"url": "http://"}, "must look like http"),
        ({"url": "http://user:hunter2@host:port"}, "must look like http"),
        ({"url": SecretStr("http://user:hunter2@host:port")}, "must look like http"),
        ({"url": "http://xn--a"}, "must look like http"),
        ({"url": "http://☃.net"}, "must look like http"),
        ({"url": "http://a..b"}, "must look like http"),
        ({"url": f"http://{'a' * 64}"}, "must look like http"),
        ({"url": "http://host/\0"}, "must look like http"),
        ({"url": None}, "must look like http"),
        ({"model": None}, "model must be the name"),
        ({"model": " "}, "model must be the name"),
        ({"protocol": "cohere"}, "protocol must be one of openai, vllm, tei, sglang"),
        ({"protocol": "tei", "template": None}, "only protocol='vllm' takes"),
        ({"template": 5}, r"must hold \{response\}"),
        ({"template": "{prompt}"}, r"must hold \{response\}"),
        ({"template": "<|begin_of_text|>{prompt}{response}"}, "BOS"),
        *(({"dimension": dimension}, "dimension must be 1 or more") for dimension in (0, 1.5, True, "8")),
        ({"shorten": True}, "shorten=True needs"),
        ({"protocol": "tei", "shorten": True, "dimension": 4}, "shorten=True needs"),
        ({"api_key": "two words"}, "api_key must be one word"),
        ({"api_key": "hunter2\u2603"}, "api_key must be one word"),
        ({"api_key": 5}, "api_key must be one word"),
        ({"api_key": ""}, "api_key must be one word"),
        ({"url": "http://user:hunter2@host", "api_key": "key"}, "one of them only"),
        ({"probe": [[1.0]]}, "probe must be one finite vector"),
        ({"probe": [float("inf")]}, "probe must be one finite vector"),
        ({"probe": "AAAA"}, "probe must be one finite vector"),
        ({"probe": [1.0, 2.0], "dimension": 3}, "probe must be one finite vector"),
    ],
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any], message: str) -> None:
    given = {"url": "http://host", "protocol": "openai", "model": "tiny", **arguments}
    with pytest.raises(ConfigurationError, match=message) as caught:
        RemoteEncoder(given.pop("url"), **given)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "limits",
    [{"batch_size": 0}, {"batch_size": 2049}, {"concurrency": 0}, {"timeout": 0}, {"retries": -1}, {"backoff": -1},
     {"longest_wait": float("nan")}, {"longest_wait": float("inf")}, {"probe_every": -1},
     {"batch_size": 1.5}, {"concurrency": True}, {"retries": "3"}, {"retries": 1.0}, {"timeout": "30"},
     {"backoff": None}, {"probe_every": True}],
)  # fmt: skip
def test_limits_out_of_range(limits: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"Limits\\({next(iter(limits))}="):
        Limits(**limits)


def test_a_key_is_sent_and_shown_nowhere(server: EmbeddingServer) -> None:
    server.key = "hunter2"
    for key in ("hunter2", " hunter2\n", SecretStr("hunter2")):
        with remote(server, api_key=key) as encoder:
            assert encoder.encode([(None, "a")]).shape == (1, 8)
            shown = repr(encoder), str(vars(encoder)), repr(encoder._connection()._client._client.headers)
    assert "hunter2" not in str(shown)
    assert shown[0] == f"RemoteEncoder({server.url.removeprefix('http://')!r}, protocol='openai', model='tiny')"


def test_hosts_that_are_not_ascii_and_addresses_that_are_secret(server: EmbeddingServer) -> None:
    for host in ("münchen.de", "xn--mnchen-3ya.de", "[::1]:8", "host."):
        RemoteEncoder(f"http://{host}", protocol="tei", model="m").close()
    with RemoteEncoder(SecretStr(server.url), protocol="tei", model="tiny", limits=FAST) as encoder:
        assert encoder.dimension == 8


@pytest.mark.slow
def test_importing_it_opens_nothing_and_loads_no_http_client() -> None:
    script = (
        "import sys, threading\n"
        "from mrm_sdk.encoders.remote.encoder import RemoteEncoder\n"
        "assert not {'httpx', 'transformers'} & sys.modules.keys()\n"
        "RemoteEncoder('http://nowhere.invalid', protocol='tei', model='m', cache='/nowhere/vectors.db').close()\n"
        "assert threading.active_count() == 1\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)
