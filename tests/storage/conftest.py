"""Databases to test on, with and without tables: a file, memory, an engine of the host's, and PostgreSQL."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database, upgrade


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


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A bound port of this machine that does not listen."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
