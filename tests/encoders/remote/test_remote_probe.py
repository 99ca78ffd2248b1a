"""The remote encoder's guard against a changed model, its cache, and both across processes and forks."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mrm_sdk.bundle.encoder_spec import PROBE_TEXT
from mrm_sdk.encoders.remote.encoder import Limits, RemoteEncoder
from mrm_sdk.errors import BundleMismatchError, ConfigurationError, EncoderError
from tests.encoders.remote.servers import EmbeddingServer, Request, vector

ALWAYS = Limits(backoff=0, retries=0, timeout=20, probe_every=0)
ONCE = Limits(backoff=0, retries=0, timeout=20)
PAIRS = [(None, f"text {n}") for n in range(5)]
EXPECTED = np.array([vector(text) for _, text in PAIRS])


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as server:
        yield server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vectors.db"


def remote(server: EmbeddingServer, **arguments: Any) -> RemoteEncoder:
    return RemoteEncoder(server.url, **{"protocol": "tei", "model": "tiny", "limits": ONCE, **arguments})


def test_the_probe_is_taken_once_and_again_when_it_is_due(server: EmbeddingServer) -> None:
    with remote(server) as encoder:
        encoder.encode(PAIRS[:1])
        encoder.encode(PAIRS[1:2])
        np.testing.assert_allclose(encoder.probe_vector(), vector("\n\n".join(PROBE_TEXT)), rtol=1e-6)
    assert [request.inputs for request in server.requests] == [["\n\n".join(PROBE_TEXT)], ["text 0"], ["text 1"]]
    server.requests.clear()
    with remote(server, limits=ALWAYS) as encoder:
        encoder.encode(PAIRS[:1])
        encoder.encode(PAIRS[1:2])
    assert [len(request.inputs) for request in server.requests] == [1] * 4


def test_a_model_that_changes_while_running_is_refused_until_it_is_back(server: EmbeddingServer) -> None:
    with remote(server, limits=ALWAYS) as encoder:
        encoder.encode(PAIRS[:1])
        server.model = "another"
        for _ in range(2):
            with pytest.raises(BundleMismatchError, match=r"no longer serves the tiny .* by more than 5%.*train a new"):
                encoder.encode(PAIRS)
        assert server.sent == ["text 0"]
        server.model = "tiny"
        np.testing.assert_allclose(encoder.encode(PAIRS), EXPECTED, rtol=1e-6)


def test_another_dimension_is_another_model(server: EmbeddingServer) -> None:
    with remote(server, limits=ALWAYS) as encoder:
        encoder.encode(PAIRS)
        server.dimension = 9
        with pytest.raises(BundleMismatchError, match="no longer serves"):
            encoder.encode(PAIRS)


def test_noise_of_real_servers_is_tolerated(server: EmbeddingServer) -> None:
    server.noise = 5e-3
    with remote(server, limits=ALWAYS) as encoder:
        for pair in PAIRS:
            encoder.encode([pair])
        server.noise = 0.2
        with pytest.raises(BundleMismatchError):
            for _ in range(20):
                encoder.encode(PAIRS)


def test_a_vector_known_beforehand(server: EmbeddingServer) -> None:
    known = vector("\n\n".join(PROBE_TEXT))
    with remote(server, probe=known.tolist()) as encoder:
        assert encoder.dimension == 8
        np.testing.assert_array_equal(encoder.probe_vector(), known)
        assert not server.requests
        np.testing.assert_allclose(encoder.encode(PAIRS), EXPECTED, rtol=1e-6)
    server.model = "another"
    with remote(server, probe=known) as encoder, pytest.raises(BundleMismatchError, match="no longer serves"):
        encoder.encode(PAIRS)
    assert len(server.sent) == len(PAIRS)


def test_an_answer_on_its_way_when_the_change_is_found_out_is_not_used(server: EmbeddingServer, path: Path) -> None:
    # One thread's request is held back by the server until another thread has found out that the model changed.
    held, go, failed = threading.Event(), threading.Event(), []

    def during(request: Request) -> None:
        if request.inputs == ["text 0"]:
            held.set()
            go.wait(20)

    server.during = during
    with remote(server, limits=ALWAYS, cache=path) as encoder:

        def encode() -> None:
            with pytest.raises(BundleMismatchError) as caught:
                encoder.encode(PAIRS[:1])
            failed.append(caught.value)

        thread = threading.Thread(target=encode)
        thread.start()
        assert held.wait(20)
        server.model = "another"
        with pytest.raises(BundleMismatchError):
            encoder.encode(PAIRS[1:])
        go.set()
        thread.join(20)
        assert len(failed) == 1
        server.model = "tiny"
        np.testing.assert_allclose(encoder.encode(PAIRS), EXPECTED, rtol=1e-6)


def test_what_is_cached_is_not_asked_for_again(server: EmbeddingServer, path: Path) -> None:
    with remote(server, cache=path) as encoder:
        encoder.encode(PAIRS[:3])
        encoder.encode(PAIRS)
        assert server.sent == [text for _, text in PAIRS]
    server.requests.clear()
    with remote(server, cache=path) as encoder:
        np.testing.assert_allclose(encoder.encode(PAIRS), EXPECTED, rtol=1e-6)
        assert encoder.dimension == 8
        assert encoder.encode([]).shape == (0, 8)
    assert not server.requests


def test_encoders_that_encode_differently_share_a_file_and_no_vector(server: EmbeddingServer, path: Path) -> None:
    with remote(server, cache=path) as one, remote(server, cache=path, template="{response}!") as other:
        one.encode(PAIRS)
        other.encode([("why", text) for _, text in PAIRS])
    assert server.sent == [text for _, text in PAIRS] + [f"{text}!" for _, text in PAIRS]


def test_a_model_that_changed_between_processes_is_refused(server: EmbeddingServer, path: Path) -> None:
    with remote(server, cache=path) as encoder:
        encoder.encode(PAIRS[:2])
    server.model = "another"
    with remote(server, cache=path) as encoder:
        np.testing.assert_allclose(encoder.encode(PAIRS[:2]), EXPECTED[:2], rtol=1e-6)
        with pytest.raises(BundleMismatchError, match=r"delete the cache .*vectors\.db"):
            encoder.encode(PAIRS)
    assert server.sent == ["text 0", "text 1"]


def test_vectors_cached_since_the_last_good_probe_are_dropped(server: EmbeddingServer, path: Path) -> None:
    with remote(server, cache=path) as early:
        early.encode(PAIRS[:1])
    with remote(server, cache=path) as encoder:
        encoder.encode(PAIRS[1:2])
        server.model = "another"
        encoder.encode(PAIRS[2:3])  # not due yet: the change cannot be known
        encoder._connection()._probe_due = 0.0  # as time would make it
        with pytest.raises(BundleMismatchError):
            encoder.encode(PAIRS[3:4])
        server.model = "tiny"
        server.requests.clear()
        np.testing.assert_allclose(encoder.encode(PAIRS[:4]), EXPECTED[:4], rtol=1e-6)
    assert server.sent == ["text 1", "text 2", "text 3"]


def test_what_another_process_cached_of_a_wrong_model_is_dropped(server: EmbeddingServer, path: Path) -> None:
    with remote(server, cache=path) as a:
        a.encode(PAIRS[:2])
        server.model = "another"
        a.encode(PAIRS[2:3])  # its next probe is not due: the change cannot be known
    with remote(server, cache=path) as b, pytest.raises(BundleMismatchError):
        b.encode(PAIRS[3:4])
    server.model = "tiny"
    with remote(server, cache=path) as c:
        np.testing.assert_allclose(c.encode(PAIRS[:3]), EXPECTED[:3], rtol=1e-6)


def test_after_a_refusal_no_process_caches_until_a_probe_is_good(server: EmbeddingServer, path: Path) -> None:
    with remote(server, cache=path) as a:
        a.encode(PAIRS[:1])
        server.model = "another"
        with remote(server, cache=path) as b, pytest.raises(BundleMismatchError):
            b.encode(PAIRS[1:2])
        a.encode(PAIRS[2:3])  # still not due
    server.model = "tiny"
    with remote(server, cache=path) as c:
        np.testing.assert_allclose(c.encode(PAIRS), EXPECTED, rtol=1e-6)
    server.requests.clear()
    with remote(server, cache=path) as d:
        np.testing.assert_allclose(d.encode(PAIRS), EXPECTED, rtol=1e-6)
    assert not server.requests


@pytest.mark.parametrize("vector", [np.ones(1, np.float32), np.full(8, np.nan, np.float32)], ids=["short", "NaN"])
def test_a_cached_row_that_is_no_vector_of_this_encoder(
    server: EmbeddingServer, path: Path, vector: NDArray[np.float32]
) -> None:
    with remote(server, cache=path) as encoder:
        encoder.encode(PAIRS)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE vectors SET vector = ?", (vector.tobytes(),))
    database.close()
    with remote(server, cache=path) as encoder, pytest.raises(EncoderError, match=r"damaged: delete it"):
        encoder.encode(PAIRS)


def test_a_cache_of_another_model_than_the_bundles(server: EmbeddingServer, path: Path) -> None:
    with remote(server, cache=path) as encoder:
        encoder.encode(PAIRS)
    with (
        remote(server, cache=path, probe=vector("something else")) as encoder,
        pytest.raises(BundleMismatchError, match=r"vectors\.db holds embeddings of another tiny.*Delete it"),
    ):
        encoder.encode(PAIRS)
    with remote(server, cache=path, dimension=16) as encoder, pytest.raises(ConfigurationError, match="8 numbers"):
        encoder.encode(PAIRS)
    with remote(server, cache=path, probe=vector("\n\n".join(PROBE_TEXT))) as encoder:
        np.testing.assert_allclose(encoder.encode(PAIRS), EXPECTED, rtol=1e-6)


def test_a_probe_given_guards_those_who_come_with_the_cache_alone(server: EmbeddingServer, path: Path) -> None:
    with remote(server, cache=path, probe=vector("\n\n".join(PROBE_TEXT))) as encoder:
        encoder.encode(PAIRS[:1])
    server.model = "another"
    with remote(server, cache=path) as encoder, pytest.raises(BundleMismatchError):
        encoder.encode(PAIRS)


def test_the_probe_given_counts_more_than_one_that_another_process_cached_meanwhile(
    server: EmbeddingServer, path: Path
) -> None:
    server.model = "another"
    with remote(server, cache=path, probe=vector("\n\n".join(PROBE_TEXT))) as encoder:
        assert encoder.dimension == 8  # opened, while the cache is empty
        with remote(server, cache=path) as unguarded:
            unguarded.encode(PAIRS[:1])
        with pytest.raises(BundleMismatchError):
            encoder.encode(PAIRS[1:])


def test_a_damaged_cache_is_told(server: EmbeddingServer, path: Path) -> None:
    path.write_bytes(b"no database at all " * 100)
    with remote(server, cache=path) as encoder, pytest.raises(EncoderError, match=r"damaged: delete it"):
        encoder.encode(PAIRS)


OTHER_PROCESS = """
import sys
from mrm_sdk.encoders.remote.encoder import RemoteEncoder

with RemoteEncoder(sys.argv[1], protocol="tei", model="tiny", cache=sys.argv[2]) as encoder:
    print(*map(len, [encoder.encode([(None, f"text {n}") for n in range(int(sys.argv[3]))])]))
"""


def _process(server: EmbeddingServer, path: Path, texts: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", OTHER_PROCESS, server.url, str(path), str(texts)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")


@pytest.mark.slow
def test_processes_share_a_cache(server: EmbeddingServer, path: Path) -> None:
    both = [_process(server, path, 200) for _ in range(2)]
    assert [process.communicate(timeout=60) for process in both] == [("200\n", "")] * 2
    server.requests.clear()
    assert _process(server, path, 200).communicate(timeout=60) == ("200\n", "")
    assert not server.requests
    server.model = "another"
    out, error = _process(server, path, 201).communicate(timeout=60)
    assert out == ""
    assert "BundleMismatchError" in error


FORK = """
import os, signal, sys
from mrm_sdk.encoders.remote.encoder import RemoteEncoder

encoder = RemoteEncoder(sys.argv[1], protocol="tei", model="tiny", cache=sys.argv[2])
encoder.encode([(None, f"parent {n}") for n in range(200)])
child = os.fork()
if not child:
    signal.alarm(30)  # a child that hangs is killed, and seen as -14
    status = 1
    try:
        status = 100 + len(encoder.encode([(None, "parent 0"), (None, "child")]))
        encoder.close()
    finally:
        os._exit(status)
_, status = os.waitpid(child, 0)
encoder.encode([(None, "child"), (None, "after")])
grandchild = os.fork()
if not grandchild:
    signal.alarm(30)
    sys.exit(3)  # leaves as programs do, without closing
print(os.waitstatus_to_exitcode(status), os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
encoder.close()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_makes_its_own_connections(server: EmbeddingServer, path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, server.url, str(path)],
        capture_output=True,
        encoding="utf-8",
        timeout=90,
        check=False,
    )
    assert done.stdout == "102 3\n", done.stderr
    assert server.sent[-2:] == ["child", "after"]
