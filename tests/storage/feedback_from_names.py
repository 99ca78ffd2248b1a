"""Feedback that follows from its name, so that any process can tell what an event must hold."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np

from mrm_sdk import Comparison, Ranking, Rating, Response
from mrm_sdk.schemas.feedback import Feedback

RANKED = 4
_OLD = datetime(2020, 1, 1, tzinfo=UTC)
_RECENT = datetime(2025, 1, 1, tzinfo=UTC)


def name_of(kind: str, user: str, writer: int, number: int) -> str:
    """An event id that says what the event is: a ``comparison``, an ``old`` one, a ``rating`` or a ``ranking``."""
    return f"{kind}:{user}:{writer}:{number}"


def response(name: str) -> Response:
    """A response with six numbers of its own."""
    return Response(text=name, embedding=np.frombuffer(_digest(name)[:6], np.int8) / 64)


def age(writer: int, number: int) -> datetime:
    """When a writer's ``old`` event of that number was judged: later writers' are later."""
    return _OLD + timedelta(minutes=writer, seconds=number)


@cache
def feedback(name: str) -> Feedback:
    """The feedback of that name."""
    kind, user, writer, number = name.split(":")
    seed = _digest(name)
    created_at = age(int(writer), int(number)) if kind == "old" else _RECENT + timedelta(minutes=seed[0])
    common = {"user_id": user, "prompt": f"prompt {seed[1] % 3}", "strength": 1 + seed[2] / 256}
    known = response(f"known {seed[3] % 20}")  # one that others judge too
    if kind == "rating":
        return Rating(**common, response=known, value=seed[4] % 5, event_id=name, created_at=created_at)
    if kind == "ranking":
        sides = [response(f"{name} at {place}") for place in range(RANKED)]
        return Ranking(**common, responses=sides, event_id=name, created_at=created_at)
    chosen, tie = response(name), seed[4] % 8 == 0
    return Comparison(**common, chosen=chosen, rejected=known, tie=tie, event_id=name, created_at=created_at)


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
