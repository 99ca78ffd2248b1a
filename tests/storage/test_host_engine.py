"""A PostgreSQL engine of the host's: its listeners see our transactions as they see the host's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa

from mrm_sdk.bundle import Bundle
from mrm_sdk.client import Client
from mrm_sdk.schemas.feedback import Comparison
from mrm_sdk.schemas.items import Response


@pytest.fixture
def engine(postgres_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(postgres_url)
    yield engine
    engine.dispose()


def used(engine: sa.Engine, bundle: Bundle) -> None:
    sides = [Response(embedding=row) for row in np.eye(6)[:2]]
    with Client(engine, bundle=bundle) as client:
        client.record(Comparison(user_id="ada", chosen=sides[0], rejected=sides[1]))
        assert client.personalize("ada").comparisons == 1
        assert len(client.export_user("ada")["comparisons"]) == 1


def test_settings_that_end_with_a_transaction(engine: sa.Engine, embedded_bundle: Bundle) -> None:
    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:  # as for row-level security
        connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS mine")
        connection.exec_driver_sql("SET LOCAL search_path = mine")

    used(engine, embedded_bundle)


def test_a_statement_at_each_checkout(engine: sa.Engine, embedded_bundle: Bundle) -> None:
    @sa.event.listens_for(engine, "checkout")
    def ping(connection: Any, *_: Any) -> None:
        connection.cursor().execute("SELECT 1")

    used(engine, embedded_bundle)


def test_an_isolation_of_its_own(engine: sa.Engine, embedded_bundle: Bundle) -> None:
    @sa.event.listens_for(engine, "connect")
    def connect(connection: Any, *_: Any) -> None:
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE

    used(engine, embedded_bundle)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW transaction_isolation").scalar() == "serializable"
