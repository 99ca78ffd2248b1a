"""A small real HTTP server of embeddings on loopback, which speaks all four protocols and fails on demand."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.bundle.encoder_spec import PROBE_TEXT


@dataclass
class Request:
    """What the server was sent."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def inputs(self) -> list[Any]:
        for name in ("input", "inputs", "text"):
            if name in self.body:
                return self.body[name]
        return [self.body["messages"]]


@dataclass
class Reply:
    """What the server answers instead of vectors; ``drop``: it hangs up, ``hold``: it waits until it is stopped."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    hold: bool = False


def vector(text: Any, model: str = "tiny", dimension: int = 8) -> NDArray[np.float32]:
    """The vector of a text under a model: random, always the same, and far from another model's."""
    seed = hashlib.sha256(json.dumps([model, text]).encode()).digest()
    return np.random.default_rng(list(seed)).normal(size=dimension).astype(np.float32)


class EmbeddingServer:
    """Serves until closed; use as a context manager.

    Args:
        model: whose vectors it returns; may be changed while it runs, as an operator would.
        dimension: of them.
        most: texts that one request may hold.
        key: bearer token that it demands.
    """

    def __init__(self, model: str = "tiny", dimension: int = 8, most: int = 1000, key: str | None = None) -> None:
        self.model, self.dimension, self.most, self.key = model, dimension, most, key
        self.noise = 0.0
        self.requests: list[Request] = []
        #: Answers in place of the next ones.
        self.script: deque[Reply] = deque()
        #: Called with each request before it is answered, while it counts as under way.
        self.during: Callable[[Request], None] = lambda _request: None
        #: What it answers to a request with this text, if not a vector.
        self.refuse: Callable[[Any], Reply | None] = lambda _text: None
        #: Turns the answer's JSON into another.
        self.change: Callable[[Any], Any] = lambda answer: answer
        self.under_way, self.peak = 0, 0
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def sent(self) -> list[Any]:
        """Every input but the probe, in the order of arrival."""
        return [text for request in self.requests for text in request.inputs if PROBE_TEXT[1] not in str(text)]

    def __enter__(self) -> EmbeddingServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            scripted = self.script.popleft() if self.script else None
        if scripted is not None:
            return scripted
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return Reply(401, b'{"error": {"message": "Incorrect API key", "code": "invalid_api_key"}}')
        texts = request.inputs
        if len(texts) > self.most:
            return Reply(413, b'{"error": "batch size %d > maximum allowed batch size %d"}' % (len(texts), self.most))
        for text in texts:
            if (refusal := self.refuse(text)) is not None:
                return refusal
        if "" in texts:
            return Reply(400, b'{"error": "`inputs` cannot be empty", "error_type": "Empty"}')
        rng = np.random.default_rng(len(self.requests))
        rows = [vector(text, self.model, self.dimension) for text in texts]
        rows = [(row + self.noise * rng.normal(size=row.shape)).tolist() for row in rows]
        answer: Any
        if request.path == "/v1/embeddings":
            answer = {"data": [{"index": i, "embedding": row} for i, row in enumerate(rows)][::-1]}
        elif request.path == "/pooling":
            answer = {"data": [{"index": i, "data": row} for i, row in enumerate(rows)][::-1]}
        elif request.path == "/embed":
            answer = rows
        elif request.path == "/encode":
            answer = [{"embedding": row, "meta_info": {}} for row in rows]
        else:
            return Reply(404, b'{"detail": "Not Found"}')
        return Reply(body=json.dumps(self.change(answer)).encode())

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one packet: Nagle's algorithm would hold the second back

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.path, headers, body)
                with server._lock:
                    server.under_way += 1
                    server.peak = max(server.peak, server.under_way)
                try:
                    server.during(request)
                    reply = server.answer(request)
                finally:
                    with server._lock:
                        server.under_way -= 1
                if reply.hold:
                    server.stopped.wait(30)
                if reply.drop or reply.hold:
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
