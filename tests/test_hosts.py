"""Hosts that fork with a client in use: gunicorn that loads its app first, and pools of processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Timer
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest

from mrm_sdk import Bundle, Client
from tests.conftest import ROOT
from tests.storage.conftest import url

pytestmark = pytest.mark.slow

__all__ = ["url"]  # a fixture of the tests of storage

PATIENCE = 120  # seconds until a host that hangs is a failure
BEFORE = 51  # events that hosted.py records before it forks
REQUESTS = 60
_ask = build_opener(ProxyHandler({})).open


def environment(url: str, bundle: Bundle) -> dict[str, str]:
    return {**os.environ, "HOSTED_DATABASE": url, "HOSTED_BUNDLE": str(bundle.path)}


@contextmanager
def gunicorn(url: str, bundle: Bundle) -> Iterator[str]:
    """A server with its app loaded before its two workers are forked; yields its address, and ends it in peace."""
    options = ["--preload", "--workers", "2", "--bind", "127.0.0.1:0", "--no-control-socket", "--log-level", "info"]
    server = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *options, "tests.hosted:loaded()"],
        cwd=ROOT,
        env=environment(url, bundle),
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert server.stderr is not None
    said: list[str] = []
    killer = Timer(PATIENCE, server.kill)  # then reading ends too
    killer.start()
    try:
        for line in server.stderr:
            said.append(line)
            if address := re.search(r"Listening at: (http://\S+)", line):
                break
        else:
            pytest.fail("".join(said))
        yield address[1]
        server.send_signal(signal.SIGTERM)
        said += server.stderr.readlines()
        assert server.wait(PATIENCE) == 0, "".join(said)
        assert not re.search("Traceback|Error|ERROR|CRITICAL|killed", "".join(said)), "".join(said)
    finally:
        killer.cancel()
        server.kill()
        server.wait()
        server.stderr.close()


def ask(address: str) -> Any:
    with _ask(address, timeout=PATIENCE) as answer:
        return json.load(answer)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="gunicorn needs a system that can fork")
def test_gunicorn_with_preload(url: str, embedded_bundle: Bundle) -> None:
    with gunicorn(url, embedded_bundle) as address, ThreadPoolExecutor(4) as pool:
        met = list(pool.map(ask, [f"{address}/first?meet", f"{address}/second?meet"]))
        assert len({pid for pid, *_ in met}) == 2  # both workers record and score
        answers = list(pool.map(ask, [f"{address}/{n}" for n in range(REQUESTS)]))
    check([*met, *answers], url, embedded_bundle, events=BEFORE + 2 + REQUESTS)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_of_processes(url: str, embedded_bundle: Bundle, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    # In a process of its own: the threads of a test run must not be forked. Newer Pythons warn of any thread.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.hosted", method]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(url, embedded_bundle),
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    answers = json.loads(done.stdout)
    assert len(answers) == 40
    check(answers, url, embedded_bundle, events=BEFORE + 40 + 1)


def check(answers: list[Any], url: str, bundle: Bundle, *, events: int) -> None:
    """Each answer came from feedback that held its own event, and nothing is missing in the end."""
    assert all(scores[0] > scores[1] for _, scores, _ in answers)
    assert {count for *_, count in answers} <= set(range(BEFORE + 1, events + 1))
    with Client(url, bundle=bundle) as client:
        assert client.personalize("ada").comparisons == events
