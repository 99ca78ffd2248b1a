"""Whether a call costs more where the tables are large: 1,000 comparisons, then 5,000,000."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import torch

from mrm_sdk import Bundle, Client
from tests.benchmarks.bare import Bare, postgres_server
from tests.benchmarks.hot_paths import small_bundle
from tests.benchmarks.store import COLUMNS, Hosting, row
from tests.benchmarks.table import measure, publish

SIZES = tuple(int(size) for size in os.environ.get("MRM_BENCH_COMPARISONS", "1000,5000000").split(","))
EACH = 20  # comparisons of one user
_CONTENT = "'2026-01-01 00:00:00'"


def fill(engine: sa.Engine, comparisons: int, features: str) -> None:
    """Other people's comparisons, by the database itself: 20 each, over as many items as users."""
    users = comparisons // EACH
    sqlite = engine.dialect.name == "sqlite"
    if sqlite:
        numbers = "WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n + 1 < {0}) "
        series, key, name = "s", "CAST(printf('%032d', {0}) AS BLOB)", "printf('{0}%030d', {1})"
        zeros, content = "zeroblob(32)", "zeroblob(32)"
    else:
        numbers, series = "", "generate_series(0::bigint, {0} - 1) AS s(n)"
        key, name = "decode(lpad(to_hex({0}), 64, '0'), 'hex')", "('{0}' || lpad(({1})::text, 30, '0'))"
        zeros = content = "decode(repeat('00', 32), 'hex')"

    def insert(table: str, values: str, count: int) -> str:
        # SQLite wants the WITH behind the INTO, PostgreSQL does not mind that there is none.
        return f"INSERT INTO {table} {numbers.format(count)}SELECT {values} FROM {series.format(count)}"

    def item(number: str) -> str:
        return key.format(number)

    def event(number: str) -> str:
        return name.format("e", number)

    user, chosen, rejected = name.format("u", f"n / {EACH}"), item(f"(n * 7919) % {users}"), item(f"n % {users}")
    false = "0" if sqlite else "false"
    indexes = [f"ix_mrm_comparisons_{column}" for column in ("user", "chosen", "rejected")]
    with engine.begin() as connection:
        made = [index for index in sa.inspect(connection).get_indexes("mrm_comparisons") if index["name"] in indexes]
        for index in indexes:
            connection.exec_driver_sql(f"DROP INDEX {index}")  # rebuilt at the end: one sort beats many inserts
        for statement in (
            insert("mrm_users", f"'default', {name.format('u', 'n')}, 1", users),
            insert("mrm_items", f"'default', {item('n')}, NULL, 'text', NULL", users),
            insert("mrm_item_features", f"'default', {item('n')}, '{features}', {zeros}", users),
            insert(
                "mrm_comparisons",
                f"'default', {event('n')}, {user}, {chosen}, {rejected}, {false}, 1.0, {_CONTENT}, {content}"
                if sqlite
                else f"'default', {event('n')}, {user}, {chosen}, {rejected}, {false}, 1.0, timestamptz {_CONTENT}, "
                f"{content}",
                comparisons,
            ),
            insert("mrm_comparison_features", f"'default', {event('n')}, '{features}', {zeros}", comparisons),
        ):
            connection.exec_driver_sql(statement.replace("%", "%%") if not sqlite else statement)
        for index in made:
            columns = ", ".join(str(column) for column in index["column_names"])
            connection.exec_driver_sql(f"CREATE INDEX {index['name']} ON mrm_comparisons ({columns})")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")


def measured(url: str, bundle: Bundle, name: str, comparisons: int) -> list[dict[str, Any]]:
    """The calls that a host makes all the time, beside so many comparisons of other people."""
    with Client(url, bundle=bundle) as client:
        client.personalize("unknown")  # makes the tables
        engine = sa.create_engine(url)
        began = time.perf_counter()
        fill(engine, comparisons, bundle.features_hash)
        print(f"{name}: {comparisons:,} comparisons in {time.perf_counter() - began:.0f} s", flush=True)
        engine.dispose()
        bare = Bare(url)
        hosting = Hosting(client, bare, f"{name}, {comparisons:,}")
        client.record_many(hosting.comparisons("ada", EACH))
        four = hosting.responses[:4]
        client.score("ada", four)
        rows = [
            row(
                "score 4 cached answers, user up to date",
                hosting.name,
                measure(lambda: client.score("ada", four), 1_000),
                measure(lambda: bare.select_weights("ada"), 1_000),
                "SELECT of weights and counter",
            ),
            hosting.personalize(EACH, 200),
            hosting.record(200),
        ]
        bare.close()
    return rows


def main() -> None:
    """Measures, prints and saves."""
    torch.set_num_threads(2)
    rows: list[dict[str, Any]] = []
    for comparisons in SIZES:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            bundle = small_bundle(folder)
            rows += measured(f"sqlite:///{folder / 'bench.db'}", bundle, "SQLite", comparisons)
            with postgres_server(folder / "postgres") as url:
                rows += measured(url, bundle, "PostgreSQL", comparisons)
    publish("store_size", rows, COLUMNS)
