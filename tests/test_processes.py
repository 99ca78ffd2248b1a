"""A client across processes and threads that end: each in a process of its own, which may hang or crash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mrm_sdk import Bundle

pytestmark = pytest.mark.slow


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'mrm.db'}"


FORK = """
import os, signal, sys
from mrm_sdk import Client, Comparison, Response

sides = [Response(embedding=[n, 1, 0, 0, 0, 0]) for n in range(2)]
client = Client(sys.argv[1], bundle=sys.argv[2])
# Enough for torch to share the work between threads, which do not survive the fork.
client.record_many(Comparison(user_id="ada", chosen=sides[0], rejected=sides[1]) for _ in range(50))
client.score("ada", sides)
child = os.fork()
if not child:
    signal.alarm(30)  # a child that hangs is killed, and seen as -14
    status = 1
    try:
        client.record(Comparison(user_id="ada", chosen=sides[0], rejected=Response(embedding=[7] * 6)))
        client.score("ada", [*sides, Response(embedding=[8] * 6)])
        status = client.personalize("ada").comparisons
    finally:
        os._exit(status)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), client.personalize("ada").comparisons)
client.close()
"""


FORK_IN_THE_FIRST_CALL = """
import os, signal, sys, threading
import mrm_sdk.user_data
from mrm_sdk import Client, Response

client = Client(sys.argv[1], bundle=sys.argv[2])
sides = [Response(embedding=[n, 1, 0, 0, 0, 0]) for n in range(2)]
upgrading, forked, upgrade = threading.Event(), threading.Event(), mrm_sdk.user_data.upgrade

def slow(database):  # a migration that takes as long as the fork wants
    upgrading.set()
    forked.wait()
    return upgrade(database)

mrm_sdk.user_data.upgrade = slow
thread = threading.Thread(target=client.score, args=("ada", sides))
thread.start()
upgrading.wait()
child = os.fork()
forked.set()
if not child:
    signal.alarm(30)
    client.score("ada", sides)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
thread.join()
client.close()
"""


CLOSE = """
import sys, threading
from mrm_sdk import Client, Comparison, MrmError, Response

client = Client("sqlite://", bundle=sys.argv[1])
sides = [Response(embedding=[n, 1, 0, 0, 0, 0]) for n in range(2)]
client.record(Comparison(user_id="ada", chosen=sides[0], rejected=sides[1]))

def work():
    try:
        while True:
            client.record(Comparison(user_id="ada", chosen=sides[0], rejected=sides[1]))
            started.set()
    except MrmError:
        pass

started = threading.Event()
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
started.wait()
client.close()
for thread in threads:
    thread.join()
print("closed")
"""


def test_closing_while_threads_record_in_memory(embedded_bundle: Bundle) -> None:
    # In a process of its own: closing a connection under a running statement would end it.
    done = subprocess.run(
        [sys.executable, "-c", CLOSE, str(embedded_bundle.path)],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "closed\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize(
    ("script", "said"), [(FORK, "51 51\n"), (FORK_IN_THE_FIRST_CALL, "0\n")], ids=["used", "in its first call"]
)
def test_a_forked_child_records_and_scores(url: str, embedded_bundle: Bundle, script: str, said: str) -> None:
    # In a process of its own: the threads of a test run must not be forked.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, url, str(embedded_bundle.path)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert (done.stdout, done.stderr) == (said, "")


def test_a_debug_allocator(url: str, embedded_bundle: Bundle) -> None:
    """pydantic's own time zone, where it is kept to the end, crashes a process there."""
    code = """
import sys
from mrm_sdk import Client, Comparison, Response
client = Client(sys.argv[1], bundle=sys.argv[2])
sides = [Response(embedding=[n, 1, 0, 0, 0, 0]) for n in range(2)]
values = {"user_id": "ada", "chosen": sides[0], "rejected": sides[1], "created_at": "2026-01-01T00:00:00+02:00"}
kept = Comparison.model_validate(values)
client.record(kept)
print(client.personalize("ada").comparisons, client.bundle.manifest.created_at.tzname())
"""
    command = [sys.executable, "-X", "dev", "-W", "ignore", "-c", code, url, str(embedded_bundle.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 UTC\n", "")
