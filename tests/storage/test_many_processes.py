"""Eight processes that record and adapt at once lose nothing, and leave what a single one would have left."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from mrm_sdk import Bundle, Client, Comparison, Recorded, Response
from tests.storage.killed_writers import FORKS

pytestmark = pytest.mark.slow

PROCESSES, EVENTS = 8, 2_000
SHARED = 100  # of a process's events, those that the next process sends too
SINGLES = 120
TOGETHER = 100
USERS = 10
PATIENCE = 300
# Databases sort these in orders of their own; processes take turns with them, so that all meet in every user.
BEGINNINGS = ["a", "B", "é", "_", "Z", "-", "ä", "9", "ß x", "Ω"]
Weights = dict[str, tuple[bytes, bytes, int]]


def event(process: int, number: int) -> Comparison:
    """One of the 2,000 events of a process: its content follows from the two numbers."""
    dice = random.Random(process * EVENTS + number)
    sides = [
        Response(text=f"answer {side}", embedding=np.random.default_rng(side).standard_normal(6))
        for side in dice.sample(range(100), 2)
    ]
    return Comparison(
        user_id=f"u{dice.randrange(USERS)}",
        chosen=sides[0],
        rejected=sides[1],
        tie=dice.random() < 0.1,
        strength=dice.choice([0.5, 1, 2]),
        event_id=f"{dice.choice(BEGINNINGS)}{process}-{number}",
        created_at=datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=number),
    )


def record_share(url: str, bundle: str, process: int, start: Any, answer: Connection) -> None:
    """Records a process's events and some of its neighbour's, adapting now and then; answers with what became of it."""
    try:
        numbers = random.Random(process).sample(range(EVENTS), EVENTS)
        # The first of each process come from two at about the same time.
        share = [event(process, number) for number in numbers]
        after = (process + 1) % PROCESSES
        others = [event(after, n) for n in random.Random(after).sample(range(EVENTS), EVENTS)[:SHARED]]
        share[:SHARED] = [e for pair in zip(share[:SHARED], others, strict=True) for e in pair]
        with Client(url, bundle=bundle) as client:
            start.wait(PATIENCE)
            done: list[Recorded] = []
            for number in range(SINGLES):
                done.append(client.record(share[number]))
                if number % 50 == 0:
                    client.personalize(share[number].user_id)
            for begin in range(SINGLES, len(share), TOGETHER):
                done.append(client.record_many(share[begin : begin + TOGETHER]))
                if begin % (10 * TOGETHER) == 0:
                    client.personalize(share[begin].user_id)
        answer.send([[d.accepted for d in done], [d.duplicates for d in done], [r for d in done for r in d.rejected]])
    except BaseException:  # noqa: BLE001  # whatever it is, the test run tells
        answer.send(traceback.format_exc())


def read_weights(url: str, bundle: str, shuffled: bool, answer: Connection) -> None:
    """Answers with all users' weights; ``shuffled``: after recording all events alone, in an order of its own."""
    try:
        with Client(url, bundle=bundle) as client:
            if shuffled:
                keys = [(process, number) for process in range(PROCESSES) for number in range(EVENTS)]
                random.Random(0).shuffle(keys)
                assert client.record_many(event(*key) for key in keys).accepted == len(keys)
            answer.send({name: _weights(client, name) for name in (f"u{n}" for n in range(USERS))})
    except BaseException:  # noqa: BLE001  # whatever it is, the test run tells
        answer.send(traceback.format_exc())


def _weights(client: Client, user_id: str) -> tuple[bytes, bytes, int]:
    user = client.personalize(user_id)
    assert user.covariance is not None
    return user.weights.tobytes(), user.covariance.tobytes(), user.comparisons


def run(work: Callable[..., None], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Runs functions in processes of their own, all at once; returns their answers."""
    ends, processes = [], []
    for arguments in calls:
        receiver, sender = FORKS.Pipe(duplex=False)
        process = FORKS.Process(target=work, args=(*arguments, sender))
        process.start()
        sender.close()
        ends.append(receiver)
        processes.append(process)
    try:
        return [_answer(end) for end in ends]
    finally:
        for process, end in zip(processes, ends, strict=True):
            process.kill()
            process.join()
            process.close()
            end.close()


def _answer(end: Connection) -> Any:
    assert end.poll(PATIENCE), "a process hangs"
    answer = end.recv()
    assert not isinstance(answer, str), answer
    return answer


@pytest.fixture(scope="module")
def alone(embedded_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """What one process makes of the same events."""
    file = tmp_path_factory.mktemp("alone") / "mrm.db"
    (weights,) = run(read_weights, [(f"sqlite:///{file}", str(embedded_bundle.path), True)])
    return weights


def test_eight_processes_in_one_database(url: str, embedded_bundle: Bundle, alone: Weights) -> None:
    bundle = str(embedded_bundle.path)
    start = FORKS.Barrier(PROCESSES)
    became = run(record_share, [(url, bundle, process, start) for process in range(PROCESSES)])
    accepted, duplicates, rejected = (list(chain.from_iterable(part)) for part in zip(*became, strict=True))
    assert (sum(accepted), sum(duplicates), rejected) == (PROCESSES * EVENTS, PROCESSES * SHARED, [])

    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT event_id, user_id FROM mrm_comparisons").all()
    events = (event(process, number) for process in range(PROCESSES) for number in range(EVENTS))
    assert sorted(map(tuple, rows)) == sorted((e.event_id, e.user_id) for e in events)

    (weights,) = run(read_weights, [(url, bundle, False)])
    assert weights == alone  # to the last bit: events are adapted to in one order, whatever order they came in
    assert sum(count for _, _, count in weights.values()) == PROCESSES * EVENTS
