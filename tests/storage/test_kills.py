"""Writers killed at random instants: what they had acknowledged is there, nothing is there by half, work goes on."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mrm_sdk import Bundle
from tests.storage.integrity import Place
from tests.storage.killed_writers import FORKS, LONGEST, Call, write

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL"),
]

SEED = 2026
KILLS = 160  # in one database that grows
FRESH = 20  # databases that have no tables yet; two kills in each
NewPlace = Callable[[], Place]


@pytest.fixture(params=["sqlite", "postgres"])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewPlace]:
    """Makes databases without tables: files, or schemas of one PostgreSQL."""
    if request.param == "sqlite":
        files = (tmp_path / f"{number}.db" for number in count())
        yield lambda: Place(f"sqlite:///{next(files)}")
        return
    url = sa.make_url(request.getfixturevalue("postgres_url"))
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    schemas = (f"place_{number}" for number in count())

    def new() -> Place:
        schema = next(schemas)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
        there = url.update_query_dict({"options": f"-csearch_path={schema}"})
        return Place(there.render_as_string(hide_password=False))

    yield new


class Victim:
    """A process that writes to a place until it is killed."""

    def __init__(self, place: Place, bundle: Bundle, writer: int) -> None:
        self._place = place
        self._unfinished: Call | None = None
        self._log, log = FORKS.Pipe(duplex=False)
        self._process: Any = FORKS.Process(target=write, args=(place.url, str(bundle.path), writer, log))
        self._process.start()
        log.close()

    def listen(self, seconds: float, *, until: str | None = None) -> None:
        """Notes what it says, for so long, or until a call of that kind has returned, which must come."""
        end = time.monotonic() + seconds
        while self._log.poll(max(0.0, end - time.monotonic())):
            try:
                said, call = self._log.recv()
            except (EOFError, OSError):  # it is dead, perhaps in the midst of a word
                break
            assert said != "failed", call
            begins = said == "begins"
            (self._place.begun if begins else self._place.returned).append(call)
            self._unfinished = call if begins else None
            if not begins and call.kind == until:
                return
        assert until is None, f"no {until} returned within {seconds} seconds"

    def kill(self) -> str:
        """Kills it; returns in the midst of what."""
        self._process.kill()
        self._process.join()
        assert self._process.exitcode == -signal.SIGKILL
        self._process.close()
        self.listen(LONGEST)  # the rest of its output, to the end
        self._log.close()
        return self._unfinished.kind if self._unfinished else "nothing"


def test_two_hundred_kills(new_place: NewPlace, embedded_bundle: Bundle) -> None:
    dice = random.Random(SEED)
    writers = count(1)
    hit: Counter[str] = Counter()

    def kill(place: Place, *, after: str | None, within: float) -> float:
        """Kills a writer at a random moment after its start or a first call of that kind; returns when that came."""
        start = time.monotonic()
        victim = Victim(place, embedded_bundle, next(writers))
        if after is not None:
            victim.listen(LONGEST, until=after)
        reached = time.monotonic() - start
        victim.listen(dice.uniform(0, within))
        hit[victim.kill()] += 1
        place.check()
        return reached

    # How long things take here, of which the others are killed in the midst.
    kill(new_place(), after="score", within=0)  # the server that forks starts too
    first = kill(new_place(), after="score", within=0)
    main = new_place()
    kill(main, after="round", within=0)
    working = kill(main, after="score", within=0)
    whole = kill(main, after="round", within=0) - working
    hit.clear()

    places = [main]
    for _ in range(FRESH):
        places.append(new_place())
        kill(places[-1], after=None, within=first)
        kill(places[-1], after="score", within=whole)
    for number in range(KILLS):
        # Every other one has recorded and scored before: so each process finds its place in working order.
        early = number % 4 == 3
        kill(main, after=None if early else "score", within=working if early else whole)
    kill(main, after="round", within=0)

    current = [place.check_contents(embedded_bundle) for place in places]
    print(f"in the midst of: {dict(hit)}; weights up to date: {sum(current)}; {first=:.3f} {working=:.3f} {whole=:.3f}")
    assert current[0] > 0
    assert hit.total() == KILLS + 2 * FRESH + 1
    assert hit["nothing"] < hit.total() / 2
    assert {"record", "record_many"} <= hit.keys()
