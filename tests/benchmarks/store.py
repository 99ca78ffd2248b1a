"""What a client's calls cost on SQLite and PostgreSQL, beside the bare statements they need."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mrm_sdk import Bundle, Client, Comparison, Response
from tests.benchmarks.bare import Bare, postgres_server
from tests.benchmarks.hot_paths import DIMENSION, pairs, small_bundle
from tests.benchmarks.table import measure, publish

MANY = 20_000
USERS = 256
Times = list[float]
Row = dict[str, Any]


def row(what: str, database: str, times: Times, floor: Times, floor_is: str, **more: Any) -> Row:
    """A line of the table; times in milliseconds."""
    median, bare = statistics.median(times), statistics.median(floor)
    return {
        "what": f"{what}, {database}",
        "median": 1e3 * median,
        "p99": 1e3 * times[int(0.99 * len(times))],
        "bare": 1e3 * bare,
        "bare_p99": 1e3 * floor[int(0.99 * len(floor))],
        "over": 1e3 * (median - bare),
        "ratio": median / bare,
        "floor": floor_is,
        **more,
    }


class Hosting:
    """One client on one database, and the same statements through its driver alone."""

    def __init__(self, client: Client, bare: Bare, name: str) -> None:
        self.client, self.bare, self.name = client, bare, name
        rng = np.random.default_rng(0)
        self.responses = [Response(embedding=rng.standard_normal(DIMENSION)) for _ in range(100)]
        self.rng = np.random.default_rng(1)

    def comparisons(self, user: str, count: int) -> list[Comparison]:
        """New ones among the same hundred responses, whose base rewards are cached."""
        sides = self.rng.permuted(np.tile(np.arange(100), (count, 1)), axis=1)[:, :2].tolist()
        return [Comparison(user_id=user, chosen=self.responses[a], rejected=self.responses[b]) for a, b in sides]

    def rows(self, repeats: int) -> Iterator[Row]:
        """Measures one call after the other."""
        self.client.record_many(self.comparisons("warm", 500))
        yield self.record(repeats)
        yield self._record_many()
        yield self._score(5 * repeats)
        yield from self.many(max(5, repeats // 10))
        for count in (20, 200):
            yield self.personalize(count, repeats)
        yield self._forget(repeats)

    def record(self, repeats: int) -> Row:
        """One event, durable."""
        waiting = iter(self.comparisons("bob", repeats + 2))
        times = measure(lambda: self.client.record(next(waiting)), repeats)
        floor = measure(self.bare.insert_one, repeats)
        return row("record, embeddings given", self.name, times, floor, "INSERT of the event, COMMIT")

    def _record_many(self) -> Row:
        batches = iter([self.comparisons(f"many {n}", MANY) for n in range(7)])
        times = measure(lambda: self.client.record_many(next(batches)), 5)
        floor = measure(lambda: self.bare.insert_many(MANY), 5)
        per_second = MANY / statistics.median(times)
        return row(
            f"record_many, {MANY:,}", self.name, times, floor, "INSERT of events and z, COMMIT", per_second=per_second
        )

    def _score(self, repeats: int) -> Row:
        self.client.record_many(self.comparisons("ada", 20))
        four = self.responses[:4]
        self.client.score("ada", four)
        times = measure(lambda: self.client.score("ada", four), repeats)
        floor = measure(lambda: self.bare.select_weights("ada"), repeats)
        return row("score 4 cached answers, user up to date", self.name, times, floor, "SELECT of weights and counter")

    def many(self, repeats: int) -> Iterator[Row]:
        """Many users in one call, beside a call for each."""
        users = [f"one of many {n}" for n in range(USERS)]
        requests = [(user, self.responses[n % 90 : n % 90 + 4]) for n, user in enumerate(users)]
        self.client.record_many(said for user in users for said in self.comparisons(user, 20))
        self.client.personalize_many(users)
        times = measure(lambda: self.client.score_many(requests), repeats)
        loop = measure(lambda: [self.client.score(*request) for request in requests], repeats)
        yield row(
            f"score_many, {USERS} users, 4 cached answers each", self.name, times, loop, f"{USERS} calls of score"
        )
        times = measure(lambda: self.client.personalize_many(users), repeats)
        loop = measure(lambda: [self.client.personalize(user) for user in users], repeats)
        yield row(f"personalize_many, {USERS} users", self.name, times, loop, f"{USERS} calls of personalize")

    def personalize(self, count: int, repeats: int) -> Row:
        """A user with so many comparisons, whose weights are stale."""
        user = f"user of {count}"
        self.client.record_many(self.comparisons(user, count))
        self.client.personalize(user)
        revision = itertools.count(10)
        times = measure(lambda: self.client.personalize(user), repeats, lambda: self.bare.make_stale(user))
        floor = measure(lambda: self.bare.read_and_update(user, next(revision)), repeats)
        one = pairs(1, count)
        inner = measure(lambda: self.client.bundle.adapt(one), repeats)
        return row(
            f"personalize, {count} comparisons",
            self.name,
            times,
            floor,
            "SELECT of them, UPDATE of weights, COMMIT",
            inner_loop=1e3 * statistics.median(inner),
        )

    def _forget(self, repeats: int) -> Row:
        names = (f"forgotten {n}" for n in itertools.count())

        def prepared(work: Callable[[str], object]) -> Times:
            user = [""]

            def prepare() -> None:
                user[0] = next(names)
                self.client.record_many(self.comparisons(user[0], 20))
                self.client.personalize(user[0])

            return measure(lambda: work(user[0]), repeats, prepare)

        times = prepared(self.client.forget)
        floor = prepared(self.bare.delete)
        return row("forget, 20 comparisons", self.name, times, floor, "DELETE from 4 tables, COMMIT")


def measured(url: str, bundle: Bundle, name: str, repeats: int) -> list[Row]:
    """All lines of one database."""
    with Client(url, bundle=bundle) as client:
        client.personalize("unknown")  # makes the tables
        with contextlib.closing(Bare(url)) as bare:
            return list(Hosting(client, bare, name).rows(repeats))


COLUMNS = {
    "median": ("median ms", ".3f"),
    "p99": ("p99 ms", ".3f"),
    "bare": ("bare ms", ".3f"),
    "over": ("over bare", ".3f"),
    "ratio": ("ratio", ".2f"),
    "per_second": ("per second", ",.0f"),
    "inner_loop": ("inner loop ms", ".3f"),
    "floor": ("bare is", ""),
}


def main() -> None:
    """Measures, prints and saves."""
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bundle = small_bundle(folder)
        rows = measured(f"sqlite:///{folder / 'bench.db'}", bundle, "SQLite", 200)
        with postgres_server(folder / "postgres") as url:
            rows += measured(url, bundle, "PostgreSQL", 200)
    publish("store", rows, COLUMNS)
