"""Processes that record and adapt until they are killed, and say what they do.

They are forked from a server that has everything imported, which costs milliseconds; a fresh interpreter takes
seconds to import torch.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import traceback
from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from multiprocessing.connection import Connection
from typing import NamedTuple

# What a client imports when it is first used, and pytest, which is the main module of those who start the children.
import alembic.command
import onnxruntime
import psycopg
import pytest
import safetensors.torch
import torch

from mrm_sdk import Client, Settings
from tests.storage.feedback_from_names import age, feedback, name_of, response

HAS_FORK_SERVER = "forkserver" in multiprocessing.get_all_start_methods()
FORKS = multiprocessing.get_context("forkserver" if HAS_FORK_SERVER else "spawn")
if HAS_FORK_SERVER:
    FORKS.set_forkserver_preload([__name__])
__all__ = ["alembic", "onnxruntime", "psycopg", "pytest", "safetensors", "torch"]

CHUNK = 3
USERS = 12
LONGEST = 120


class Call(NamedTuple):
    """One call of a client: what it does, on which events or for whom."""

    kind: str
    names: tuple[str, ...] = ()
    user: str = ""
    writer: int = 0
    round: int = 0

    @property
    def units(self) -> list[tuple[str, ...]]:
        """Its events, as they are stored: each of these together or not at all."""
        if self.kind == "record_many":
            return [self.names[start : start + CHUNK] for start in range(0, len(self.names), CHUNK)]
        return [self.names]


def calls(writer: int) -> Iterator[Call]:
    """What a writer does: at once something to see that it works, then rounds of everything, each in another order."""
    user, other = f"u{writer % USERS}", f"u{(writer + 1) % USERS}"
    yield Call("record", (name_of("comparison", user, writer, 0),))
    yield Call("score", user=user)
    dice = random.Random(writer)
    for number in count(1):
        leaver = f"leaver {writer} {number}"
        several = tuple(name_of("comparison", u, writer, 10 * number + n) for n in range(4) for u in (user, other))
        passages = [
            [Call("record", (name_of("comparison", user, writer, 10 * number + 9),))],
            [Call("record", (name_of("rating", user, writer, number),))],
            [Call("record", (name_of("ranking", other, writer, number),))],
            [Call("record_many", several)],
            [Call("personalize", user=user)],
            [Call("score", user=other)],
            [
                Call("record_many", tuple(name_of("comparison", leaver, writer, n) for n in range(CHUNK + 1))),
                Call("score", user=leaver),
                Call("forget", user=leaver),
            ],
            [
                Call("record", (name_of("old", other, writer, number),)),
                Call("prune", writer=writer, round=number),
            ],
        ]
        dice.shuffle(passages)
        for passage in passages:
            yield from passage
        yield Call("round")


def perform(client: Client, call: Call) -> None:
    """Makes the call."""
    match call.kind:
        case "record":
            client.record(feedback(call.names[0]))
        case "record_many":
            done = client.record_many(feedback(name) for name in call.names)
            assert done.accepted == len(call.names), done
        case "score":
            client.score(call.user, [response("known 1"), response("known 2")])
        case "personalize":
            client.personalize(call.user)
        case "forget":
            client.forget(call.user)
        case "prune":
            client.prune(older_than=age(call.writer, call.round) + timedelta(milliseconds=500))


def write(url: str, bundle: str, writer: int, log: Connection) -> None:
    """Makes calls for ever, says before each one that it begins and after it that it returned; or what went wrong."""
    if hasattr(signal, "alarm"):
        signal.alarm(LONGEST)  # no process is left behind if the test run itself is killed
    try:
        client = Client(url, bundle=bundle, settings=Settings(chunk_size=CHUNK, threads=1))
        for call in calls(writer):
            log.send(("begins", call))
            perform(client, call)
            log.send(("returned", call))
    except BaseException:  # noqa: BLE001  # whatever it is, the test run tells
        log.send(("failed", traceback.format_exc()))
        os._exit(1)
