"""What the hot paths of a host application cost; imports the public API and training."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mrm_sdk import Bundle, Client, Comparison, Response
from mrm_sdk.core.batching import Pairs
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.datasets import read_dataset
from mrm_sdk.training.pipeline import train_bundle
from tests.benchmarks.table import median, publish
from tests.conftest import write_embedded_dataset

DIMENSION, K = 384, 8


def pairs(users: int, count: int) -> Pairs:
    z = torch.randn(users, count, K, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Pairs(z, torch.ones(users, count).double(), torch.zeros(users, count).double())


def one_newton_pass(z: np.ndarray[Any, Any], strength: np.ndarray[Any, Any]) -> None:
    """The floor of adaptation: a single Newton step in numpy, without a check of any kind."""
    lost = 1 / (1 + np.exp(z @ np.ones(K)))
    hessian = (z * (strength * lost * (1 - lost))[:, None]).T @ z + np.eye(K)
    np.linalg.solve(hessian, -(strength * lost) @ z)


def adaptation(bundle: Bundle) -> list[dict[str, Any]]:
    rows = []
    for count in (20, 200):
        one = pairs(1, count)
        z, strength = one.z[0].numpy(), one.strength[0].numpy()
        floor = median(lambda z=z, strength=strength: one_newton_pass(z, strength), 300)
        rows.append(
            row(
                f"adapt one user, {count} comparisons",
                median(lambda p=one: bundle.adapt(p), 300),
                floor,
                "one Newton step in numpy",
            )
        )
    many = pairs(4096, 20)
    each = median(lambda: bundle.adapt(many), 5) / 4096
    rows.append(
        row("adapt 4,096 users in one batch, per user", each, floor, "one Newton step in numpy, 200 comparisons")
    )
    return rows


def comparisons(user: str, count: int, responses: list[Response], start: int = 0) -> list[Comparison]:
    rng = np.random.default_rng(start)
    chosen = rng.integers(0, len(responses), (count, 2))
    return [
        Comparison(user_id=user, chosen=responses[a], rejected=responses[b], event_id=f"{user}-{start + n}")
        for n, (a, b) in enumerate(chosen)
    ]


def hosting(bundle: Bundle, folder: Path) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    responses = [Response(embedding=rng.standard_normal(DIMENSION)) for _ in range(100)]
    rows, path = [], folder / "bench.db"
    with Client(f"sqlite:///{path}", bundle=bundle) as client:
        client.record_many(comparisons("ada", 20, responses))
        client.score("ada", responses[:4])
        with sqlite3.connect(path) as bare:
            query = "SELECT weights, feedback FROM mrm_user_weights WHERE tenant = 'default' AND user_id = 'ada'"
            floor = median(lambda: bare.execute(query).fetchone(), 500)
        bare.close()
        rows.append(
            row(
                "score 4 cached answers, user up to date",
                median(lambda: client.score("ada", responses[:4]), 500),
                floor,
                "bare SELECT of the row",
            )
        )

        fresh = iter(range(10**6))
        insert = [
            ("default", f"x{n}", "ada", b"c" * 32, b"r" * 32, 0, 1.0, "2026-01-01", b"h" * 32) for n in range(10_000)
        ]
        with sqlite3.connect(folder / "floor.db") as bare:
            bare.execute("PRAGMA journal_mode=WAL")
            bare.execute("PRAGMA synchronous=FULL")
            bare.execute("CREATE TABLE c (tenant, event_id, a, b, c, d, e, f, g, PRIMARY KEY (tenant, event_id))")

            def one_by_one() -> None:
                bare.execute("INSERT INTO c VALUES (?,?,?,?,?,?,?,?,?)", (f"t{next(fresh)}", *insert[0][1:]))
                bare.commit()

            def many_at_once() -> None:
                tenant = f"t{next(fresh)}"
                bare.executemany(
                    "INSERT INTO c VALUES (?,?,?,?,?,?,?,?,?)", [(tenant, *values[1:]) for values in insert]
                )
                bare.commit()

            single, bulk = median(one_by_one, 100), median(many_at_once, 5)
        bare.close()
        numbers = iter(range(100, 10**6))

        def record() -> None:
            n = next(numbers)
            client.record(Comparison(user_id="bob", chosen=responses[n % 100], rejected=responses[(n + 1) % 100]))

        rows.append(row("record one comparison, durable", median(record, 100), single, "bare INSERT and commit"))

        def record_and_personalize() -> None:
            client.record_many(comparisons("cleo", 1, responses, start=next(numbers)))
            client.personalize("cleo")

        client.record_many(comparisons("cleo", 20, responses))
        rows.append(
            row(
                "record one and personalize, 20 to 60 comparisons",
                median(record_and_personalize, 40),
                single,
                "bare INSERT and commit",
            )
        )
        batches = iter([comparisons(f"u{n}", 10_000, responses) for n in range(6)])
        rows.append(
            row(
                "record_many, per 10,000 comparisons",
                median(lambda: client.record_many(next(batches)), 5),
                bulk,
                "bare executemany of the events",
            )
        )
    return rows


def row(what: str, seconds: float, floor: float, floor_is: str) -> dict[str, Any]:
    return {"what": what, "milliseconds": 1000 * seconds, "ratio": seconds / floor, "floor": floor_is}


def main() -> None:
    """Measures, prints and saves."""
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = write_embedded_dataset(folder / "data", dimension=DIMENSION, users=20)
        train_bundle(read_dataset(data), folder / "bundle", config=TrainingConfig(base_functions=K, steps=20))
        bundle = Bundle(folder / "bundle")
        rows = adaptation(bundle) + hosting(bundle, folder)
    columns = {"milliseconds": ("median ms", ".3f"), "ratio": ("ratio", ".1f"), "floor": ("to", "")}
    publish("hot_paths", rows, columns)
