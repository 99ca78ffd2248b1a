"""A host application that uses its client before it forks.

For gunicorn, ``loaded()`` makes the WSGI app. As a program (``python -m tests.hosted METHOD``) it maps
work over a pool of processes and prints what they answered.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from mrm_sdk import Client, Comparison, Response

WORKERS = 2
PATIENCE = 60

# One worker that answers does not show that the other one could: requests that say so wait for each other.
meeting = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn").Barrier(WORKERS)
sides = [Response(text=f"answer {n}", embedding=[n, 1, 0, 0, 0, 0]) for n in range(2)]
client = Client(os.environ["HOSTED_DATABASE"], bundle=os.environ["HOSTED_BUNDLE"])


def use(event_id: str) -> list[Any]:
    """Records and scores; returns who did, the scores, and how much feedback they come from."""
    new = Response(text=event_id, embedding=[3, 2, len(event_id), 0, 0, 0])  # one that no cache holds yet
    client.record(Comparison(user_id="ada", chosen=sides[0], rejected=new, event_id=event_id))
    scores = client.score("ada", [*sides, new])
    return [os.getpid(), [float(score) for score in scores], client.personalize("ada").comparisons]


def use_before() -> None:
    """What a host does at its start: everything that opens connections, sessions and threads."""
    # Enough for torch to share the work between threads, which do not survive a fork.
    client.record_many(Comparison(user_id="ada", chosen=sides[0], rejected=sides[1]) for _ in range(50))
    use("before the fork")


def loaded() -> Callable[..., Iterable[bytes]]:
    """The app, whose client is in use."""
    use_before()
    return application


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Records an event that is called as the path, and scores."""
    if environ["QUERY_STRING"] == "meet":
        meeting.wait(PATIENCE)
    answer = json.dumps(use(environ["PATH_INFO"])).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]


def _work(event_id: str) -> list[Any]:
    return use(event_id)


def _main(method: str) -> None:
    use_before()
    with multiprocessing.get_context(method).Pool(WORKERS) as pool:
        answers = pool.map_async(_work, [f"{method} {n}" for n in range(40)], chunksize=1).get(PATIENCE)
        pool.close()
        pool.join()
    use("after the fork")
    print(json.dumps(answers))
    client.close()


if __name__ == "__main__":
    _main(sys.argv[1])
