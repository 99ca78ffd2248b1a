"""PostgreSQL behind a pooler in transaction mode, where the next transaction runs in another session."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from mrm_sdk.bundle import Bundle
from mrm_sdk.client import Client
from mrm_sdk.errors import DatabaseUnavailableError
from mrm_sdk.schemas.feedback import Comparison, Rating
from mrm_sdk.schemas.items import Response
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database, check, current, upgrade
from tests.storage.pooler import Pooler, pooled

SIDES = [Response(embedding=row) for row in np.eye(6)]


@pytest.fixture
def behind(postgres_url: str) -> Iterator[tuple[str, Pooler]]:
    """The URL of a database behind a pooler, and the pooler."""
    url = sa.make_url(postgres_url)
    with pooled(Path(str(url.query["host"])) / ".s.PGSQL.5432") as (port, pooler):
        moved = url.set(host="127.0.0.1", port=port).update_query_dict({"host": "127.0.0.1"})
        yield moved.render_as_string(hide_password=False), pooler


def judged(user: str, n: int) -> Comparison:
    chosen, rejected = SIDES[n % 6], SIDES[(n + 1) % 6]
    return Comparison(user_id=user, chosen=chosen, rejected=rejected, event_id=f"{user} {n}")


@pytest.mark.parametrize("settings", [Settings(), Settings(pool_size=0), Settings(database_schema="apart")])
def test_everything_works_behind_it(behind: tuple[str, Pooler], embedded_bundle: Bundle, settings: Settings) -> None:
    url, pooler = behind

    def host(user: str) -> None:
        for n in range(12):
            assert client.record(judged(user, n)).accepted == 1
            assert client.personalize(user).comparisons == n + 1
        assert client.record_many(judged(user, n) for n in range(40)).accepted == 28

    with Client(url, bundle=embedded_bundle, settings=settings) as client, ThreadPoolExecutor(4) as pool:
        list(pool.map(host, "abcd"))
        client.record(Rating(user_id="a", response=SIDES[0], value=1.0))
        assert client.personalize("a").comparisons == 41
        assert client.export_user("a")["counts"]["mrm_comparisons"] == 40
        assert client.forget("a").rows["mrm_comparisons"] == 40
        client.prune(older_than=timedelta(days=1))
        assert client.score("b", SIDES[:2]).shape == (2,)
    database = Database(url, settings)
    assert upgrade(database)[0] == current(database)
    assert check(database) == []
    database.close()
    assert pooler.transactions > 200


def test_the_pooler_breaks_what_is_prepared(behind: tuple[str, Pooler], embedded_bundle: Bundle) -> None:
    """A host's own engine, as SQLAlchemy makes it, shows that the test above could fail; the error says what to do."""
    url, _ = behind
    for prepared in (5, None):
        engine = sa.create_engine(url, connect_args={"prepare_threshold": prepared})
        with Client(engine, bundle=embedded_bundle) as client:
            if prepared is None:
                client.record_many(judged("ada", n) for n in range(10))
                assert client.personalize("ada").comparisons == 10
            else:
                with pytest.raises(DatabaseUnavailableError, match=r"connect_args=\{'prepare_threshold': None\}"):
                    for n in range(20):
                        client.record(judged("ada", n))
                        client.personalize("ada")
        engine.dispose()


def test_the_pooler_loses_what_a_session_remembers(behind: tuple[str, Pooler]) -> None:
    database = Database(behind[0], Settings(pool_size=1))
    with database.transaction() as connection:
        connection.execute(sa.text("SET application_name = 'mine'"))
        assert connection.scalar(sa.text("SHOW application_name")) == "mine"
    with database.transaction() as connection:
        assert connection.scalar(sa.text("SHOW application_name")) != "mine"
    database.close()
