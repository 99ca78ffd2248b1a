"""The schema's versions, on both kinds of database."""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from mrm_sdk.bundle import Bundle
from mrm_sdk.client import Client
from mrm_sdk.errors import DatabaseError, SchemaAheadError, SchemaOutdatedError
from mrm_sdk.schemas.feedback import Comparison, Rating
from mrm_sdk.schemas.items import Response
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database, check, current, upgrade
from mrm_sdk.storage.migrate import VERSION_TABLE, _migrations
from mrm_sdk.storage.tables import Base

HEAD = _migrations()[1].get_current_head()
OURS = {*Base.metadata.tables, VERSION_TABLE}
ROUNDS = 12


def tables(database: Database) -> set[str]:
    with database.transaction() as connection:
        return set(sa.inspect(connection).get_table_names())


def execute(database: Database, *statements: str) -> None:
    with database.transaction(write=True) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_upgrade_from_nothing_then_nothing_to_do(empty: Database) -> None:
    assert current(empty) is None
    assert upgrade(empty) == (None, HEAD)
    assert tables(empty) == OURS
    assert current(empty) == HEAD
    execute(empty, "INSERT INTO mrm_users VALUES ('t', 'u', 1)")
    assert upgrade(empty) == (HEAD, HEAD)
    with empty.transaction() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM mrm_users").scalar() == 1


def test_the_tables_are_those_of_the_models(empty: Database) -> None:
    upgrade(empty)
    assert check(empty) == []


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("ALTER TABLE mrm_users ADD COLUMN surprise INTEGER", "surprise"),
        ("DROP INDEX ix_mrm_outbox_user", "ix_mrm_outbox_user"),
    ],
)
def test_check_names_a_difference(empty: Database, statement: str, named: str) -> None:
    upgrade(empty)
    execute(empty, statement)
    (difference,) = check(empty)
    assert named in difference


def test_check_leaves_the_hosts_tables_alone(empty: Database) -> None:
    execute(empty, "CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT)", "CREATE INDEX ix_note ON orders (note)")
    upgrade(empty)
    assert check(empty) == []


def test_downgrade_leaves_the_version_table_only(empty: Database) -> None:
    upgrade(empty)
    config, _ = _migrations()
    with empty.transaction(write=True) as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert tables(empty) == {VERSION_TABLE}
    assert current(empty) is None
    assert upgrade(empty) == (None, HEAD)
    assert check(empty) == []


def test_ratings_come_and_go_beside_rows_that_stay(empty: Database, embedded_bundle: Bundle) -> None:
    config, _ = _migrations()

    def move(direction: Callable[[Config, str], None], revision: str) -> None:
        with empty.transaction(write=True) as connection:
            config.attributes["connection"] = connection
            direction(config, revision)

    sides = [Response(embedding=np.eye(6)[n]) for n in range(3)]
    comparison = Comparison(user_id="ada", chosen=sides[0], rejected=sides[1])
    upgrade(empty, "0001")
    with pytest.raises(SchemaOutdatedError):
        check(empty)
    execute(empty, "INSERT INTO mrm_users VALUES ('default', 'bob', 7)")
    move(command.upgrade, "head")
    assert check(empty) == []
    with Client(empty.engine, bundle=embedded_bundle) as client:
        client.record(comparison)
        compared = client.personalize("ada").weights
        client.record_many([Rating(user_id="ada", response=side, value=n) for n, side in enumerate(sides)])
        assert not np.array_equal(client.personalize("ada").weights, compared)

    move(command.downgrade, "0001")
    assert tables(empty) == OURS - {"mrm_ratings", "mrm_retention"}
    with empty.transaction() as connection:
        counts = {name: f"SELECT count(*) FROM {name}" for name in ("mrm_users", "mrm_comparisons", "mrm_items")}
        counted = {name: connection.exec_driver_sql(query).scalar() for name, query in counts.items()}
        features = connection.exec_driver_sql("SELECT count(*) FROM mrm_item_features").scalar()
    # What was only rated goes with its rating: no user is left in whose name it could be forgotten.
    assert (counted, features) == ({"mrm_users": 2, "mrm_comparisons": 1, "mrm_items": 2}, 2)

    upgrade(empty)
    assert check(empty) == []
    with Client(empty.engine, bundle=embedded_bundle) as client:
        user = client.personalize("ada")  # weights that had seen the ratings are not taken for current
        assert user.comparisons == 1
        np.testing.assert_array_equal(user.weights, compared)


def test_the_line_of_retention_comes_and_goes_beside_rows_that_stay(empty: Database, embedded_bundle: Bundle) -> None:
    config, _ = _migrations()
    sides = [Response(embedding=np.eye(6)[n]) for n in range(2)]
    moments = [datetime.now(UTC) - timedelta(days=days) for days in (90, 1)]
    old, new = (Comparison(user_id="ada", chosen=sides[0], rejected=sides[1], created_at=each) for each in moments)
    upgrade(empty, "0002")
    execute(empty, "INSERT INTO mrm_users VALUES ('default', 'bob', 7)")
    upgrade(empty)
    with Client(empty.engine, bundle=embedded_bundle) as client:
        client.record_many([old, new])
        client.prune(older_than=timedelta(days=60))
        user = client.personalize("ada")
        assert user.comparisons == 1

    with empty.transaction(write=True) as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0002")
    assert tables(empty) == OURS - {"mrm_retention"}
    upgrade(empty)
    assert check(empty) == []
    with Client(empty.engine, bundle=embedded_bundle) as client:
        # Not lost, but adapted again: the version in between knew of no thresholds.
        again = user.model_copy(update={"revision": user.revision + 1})
        assert client.personalize("ada") == again
        assert client.record(old).accepted == 1  # the line went with its table


def test_tables_of_a_newer_version(empty: Database, embedded_bundle: Bundle) -> None:
    upgrade(empty)
    execute(empty, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    for call in (upgrade, check):
        with pytest.raises(SchemaAheadError, match=r"9999.*pip install --upgrade mrm-sdk"):
            call(empty)
    for settings in (Settings(), Settings(auto_migrate=False)):
        client = Client(empty.engine, bundle=embedded_bundle, settings=settings)
        with client, pytest.raises(SchemaAheadError):
            client.personalize("ada")
    assert tables(empty) == OURS


def test_a_client_that_must_not_migrate(empty: Database, embedded_bundle: Bundle) -> None:
    with Client(empty.engine, bundle=embedded_bundle, settings=Settings(auto_migrate=False)) as client:
        with pytest.raises(SchemaOutdatedError, match="mrm db upgrade"):
            client.personalize("ada")
        assert tables(empty) == set()
        upgrade(empty)
        assert client.personalize("ada").comparisons == 0


def test_check_wants_tables(empty: Database) -> None:
    with pytest.raises(SchemaOutdatedError):
        check(empty)


def test_the_hosts_own_tables_and_versions_stay(empty: Database) -> None:
    execute(
        empty,
        "CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)",
        "INSERT INTO alembic_version VALUES ('hosts')",
        "CREATE TABLE users (id INTEGER PRIMARY KEY)",
        "INSERT INTO users VALUES (7)",
    )
    upgrade(empty)
    config, _ = _migrations()
    with empty.transaction(write=True) as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    with empty.transaction() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all() == ["hosts"]
        assert connection.exec_driver_sql("SELECT id FROM users").scalars().all() == [7]
    assert tables(empty) == {"alembic_version", "users", VERSION_TABLE}


def test_a_failed_upgrade_leaves_nothing(empty: Database) -> None:
    # The name of a table of ours is taken: what was made before it must not stay half-way.
    execute(empty, "CREATE TABLE mrm_tombstones (id INTEGER)")
    with pytest.raises(DatabaseError, match="mrm_tombstones"):
        upgrade(empty)
    assert tables(empty) == {"mrm_tombstones"}
    execute(empty, "DROP TABLE mrm_tombstones")
    assert upgrade(empty) == (None, HEAD)


def test_the_hosts_logging_is_left_alone(empty: Database) -> None:
    host = logging.getLogger("host.made.before")
    root = logging.getLogger()
    before = (root.level, list(root.handlers), host.disabled, logging.getLogger("alembic").level)
    upgrade(empty)
    check(empty)
    assert (root.level, list(root.handlers), host.disabled, logging.getLogger("alembic").level) == before


def _upgrade_all(urls: list[str], barrier: Barrier, out: Path) -> None:
    """What one process does: upgrades each database at the very moment when the other does."""
    results: list[object] = []
    for url in urls:
        database = Database(url, Settings())
        barrier.wait(60)
        try:
            results.append(upgrade(database))
        except Exception as error:  # noqa: BLE001  # whatever it is, the test shows it
            results.append(repr(error))
        database.close()
    out.write_text(json.dumps(results))


def _race(urls: list[str], folder: Path) -> list[list[object]]:
    """Two processes that upgrade the same databases; returns what each saw."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    outs = [folder / f"{number}.json" for number in range(2)]
    processes = [context.Process(target=_upgrade_all, args=(urls, barrier, out)) for out in outs]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
        process.close()
    return [json.loads(out.read_text()) for out in outs]


@pytest.mark.slow
def test_two_processes_upgrade_one_file(tmp_path: Path) -> None:
    # Many rounds: who is first to a fresh file is a matter of microseconds.
    urls = [f"sqlite:///{tmp_path / f'{number}.db'}" for number in range(ROUNDS)]
    for pair in zip(*_race(urls, tmp_path), strict=True):
        assert sorted(pair, key=str) == [[HEAD, HEAD], [None, HEAD]]


def test_two_processes_upgrade_one_postgres(postgres_url: str, tmp_path: Path) -> None:
    (pair,) = zip(*_race([postgres_url], tmp_path), strict=True)
    assert sorted(pair, key=str) == [[HEAD, HEAD], [None, HEAD]]
