"""Tables in a schema of their own, in a PostgreSQL database that others use as well."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import pytest
import sqlalchemy as sa
from alembic import command

from mrm_sdk.bundle import Bundle
from mrm_sdk.client import Client
from mrm_sdk.errors import ConfigurationError, DatabaseUnavailableError, SchemaOutdatedError
from mrm_sdk.schemas.feedback import Comparison, Rating
from mrm_sdk.schemas.items import Response
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database, check, current, upgrade
from mrm_sdk.storage.migrate import VERSION_TABLE, _migrations
from mrm_sdk.storage.tables import Base
from tests.conftest import mrm

OURS = {*Base.metadata.tables, VERSION_TABLE}
SIDES = [Response(embedding=row) for row in np.eye(6)]
APART = Settings(database_schema="apart")


@pytest.fixture
def host(postgres_url: str) -> Iterator[sa.Engine]:
    """A host's engine, with a table of the host's that is named as one of ours."""
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE mrm_users (name TEXT)")
        connection.exec_driver_sql("INSERT INTO mrm_users VALUES ('of the host')")
    yield engine
    with engine.begin() as connection:  # as it was, and still what a name without a schema means
        assert connection.exec_driver_sql("SELECT * FROM mrm_users").all() == [("of the host",)]
        assert sa.inspect(connection).get_table_names() == ["mrm_users"]
    engine.dispose()


def tables(engine: sa.Engine, schema: str) -> set[str]:
    with engine.connect() as connection:
        return set(sa.inspect(connection).get_table_names(schema))


def test_everything_stays_within_it(host: sa.Engine, embedded_bundle: Bundle) -> None:
    with Client(host, bundle=embedded_bundle, settings=APART) as client:
        for chosen, rejected in ((0, 1), (2, 3), (0, 1)):
            client.record(Comparison(user_id="ada", chosen=SIDES[chosen], rejected=SIDES[rejected]))
            client.personalize("ada")
        client.record(Rating(user_id="bob", response=SIDES[0], value=1.0))
        assert client.personalize("ada").revision == 3
        assert client.export_user("ada")["counts"]["mrm_comparisons"] == 3
        assert client.prune(older_than=timedelta(days=1)).rows["mrm_comparisons"] == 0
        assert client.forget("ada").rows["mrm_comparisons"] == 3
        assert client.personalize("bob").comparisons == 1
    assert tables(host, "apart") == OURS
    assert not host.get_execution_options()


def test_two_schemas_see_nothing_of_each_other(postgres_url: str, embedded_bundle: Bundle) -> None:
    event = Comparison(user_id="ada", chosen=SIDES[0], rejected=SIDES[1])
    names = (None, "one", "Two_2")
    clients = [Client(postgres_url, bundle=embedded_bundle, settings=Settings(database_schema=name)) for name in names]
    for number, client in enumerate(clients):
        assert [each.personalize("ada").comparisons for each in clients] == [1] * number + [0] * (3 - number)
        assert client.record(event).accepted == 1
    clients[1].forget("ada")
    assert [each.personalize("ada").comparisons for each in clients] == [1, 0, 1]
    for client in clients:
        client.close()


def test_its_versions_are_its_own(host: sa.Engine) -> None:
    database = Database(host, APART)
    with pytest.raises(SchemaOutdatedError, match="MRM_DATABASE_SCHEMA=apart mrm db upgrade"):
        check(database)
    assert current(database) is None
    first, head = (_migrations()[1].get_base(), _migrations()[1].get_current_head())
    assert first is not None
    assert upgrade(database, first) == (None, first)
    assert upgrade(database) == (first, head)
    assert current(database) == head
    assert check(database) == []
    assert current(Database(host, Settings())) is None

    config, _ = _migrations()
    with database.transaction(write=True) as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert tables(host, "apart") == {VERSION_TABLE}
    assert upgrade(database) == (None, head)
    assert check(database) == []
    with database.transaction() as connection:
        connection.exec_driver_sql("ALTER TABLE apart.mrm_users ADD COLUMN surprise INTEGER")
    (difference,) = check(database)
    assert "surprise" in difference


def test_what_is_set_for_migrating_ends_with_it(host: sa.Engine) -> None:
    """A session goes back to its pool, or a pooler's, as it came."""
    with host.connect() as connection:
        before = connection.exec_driver_sql("SHOW search_path").scalar()
    upgrade(Database(host, APART))
    with host.connect() as connection:
        assert connection.exec_driver_sql("SHOW search_path").scalar() == before


def test_a_role_that_may_create_no_schema(host: sa.Engine) -> None:
    with host.begin() as connection:
        for statement in (
            "DROP ROLE IF EXISTS mrm_guest",
            "CREATE ROLE mrm_guest LOGIN",
            "CREATE SCHEMA granted AUTHORIZATION mrm_guest",
        ):
            connection.exec_driver_sql(statement)
    guest = host.url.set(username="mrm_guest").render_as_string(hide_password=False)
    database = Database(guest, Settings(database_schema="granted"))
    upgrade(database)
    assert check(database) == []
    database.close()
    database = Database(guest, APART)
    with pytest.raises(DatabaseUnavailableError, match="grant this role"):
        upgrade(database)
    database.close()
    with host.begin() as connection:
        connection.exec_driver_sql("DROP OWNED BY mrm_guest")
        connection.exec_driver_sql("DROP ROLE mrm_guest")


def test_a_role_that_may_change_rows_only(host: sa.Engine, embedded_bundle: Bundle) -> None:
    upgrade(Database(host, APART))
    with host.begin() as connection:
        for statement in (
            "DROP ROLE IF EXISTS mrm_clerk",
            "CREATE ROLE mrm_clerk LOGIN",
            "GRANT USAGE ON SCHEMA apart TO mrm_clerk",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA apart TO mrm_clerk",
        ):
            connection.exec_driver_sql(statement)
    url = host.url.set(username="mrm_clerk").render_as_string(hide_password=False)
    settings = Settings(database_schema="apart", auto_migrate=False)
    with Client(url, bundle=embedded_bundle, settings=settings) as client:
        client.record(Comparison(user_id="ada", chosen=SIDES[0], rejected=SIDES[1]))
        assert client.personalize("ada").comparisons == 1
        assert client.export_user("ada")["counts"]["mrm_comparisons"] == 1
        client.prune(older_than=timedelta(days=1))
        assert client.forget("ada").rows["mrm_comparisons"] == 1
    with host.begin() as connection:
        connection.exec_driver_sql("DROP OWNED BY mrm_clerk")
        connection.exec_driver_sql("DROP ROLE mrm_clerk")


def test_the_command_line_goes_there_too(host: sa.Engine) -> None:
    url = host.url.render_as_string(hide_password=False)
    for name, said in (("upgrade", "no tables -> "), ("current", ""), ("check", "as they should be")):
        done = mrm("db", name, "--database", url, MRM_DATABASE_SCHEMA="apart")
        assert done.code == 0, done.err
        assert said in done.out
    assert tables(host, "apart") == OURS


def test_sqlite_has_none(sqlite_url: str, embedded_bundle: Bundle) -> None:
    for url in (sqlite_url, "sqlite://"):
        with pytest.raises(ConfigurationError, match=r"a file of its own.*prefix mrm_"):
            Client(url, bundle=embedded_bundle, settings=APART)


@pytest.mark.parametrize("name", ["", "1st", "a b", 'a"; DROP SCHEMA public; --', "a.b", "pg_temp", "é", "x" * 64])
def test_a_name_that_cannot_be_one(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"database_schema \(or MRM_DATABASE_SCHEMA\).*up to 63 letters"):
        Settings(database_schema=name)
