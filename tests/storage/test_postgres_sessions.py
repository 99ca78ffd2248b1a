"""PostgreSQL as others have set it up: encodings, styles of dates and time zones of databases and environments."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from mrm_sdk import Bundle, Client, Comparison, Rating, Response, Settings
from mrm_sdk.errors import ContentionError, DatabaseError
from mrm_sdk.storage import Database

pytestmark = pytest.mark.slow

FIRST_DAY = datetime(1, 1, 1, tzinfo=UTC)  # Go's zero time


def answer(number: int) -> Response:
    return Response(text=f"answer {number} 😀", embedding=[number, 1, 0, 0, 0, 0])


@pytest.fixture
def database(postgres: sa.URL, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database that is created with some words, and whose sessions get a setting."""
    words, setting = request.param
    name = f"test_{uuid4().hex}"
    engine = sa.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE template0 {words}")
        if setting:
            connection.exec_driver_sql(f"ALTER DATABASE {name} SET {setting}")
    yield postgres.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


def every_call(url: str | sa.Engine, bundle: Bundle) -> None:
    with Client(url, bundle=bundle) as client:
        for number, moment in enumerate((FIRST_DAY, datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC))):
            sides = {"chosen": answer(number), "rejected": answer(9)}
            assert client.record(Comparison(user_id="ann", prompt="q", **sides, created_at=moment)).accepted
            rating = Rating(user_id="ann", prompt="q", response=answer(number), value=number, created_at=moment)
            assert client.record(rating).accepted
        assert client.personalize("ann").comparisons == 4
        exported = client.export_user("ann")
        assert [row["created_at"][:4] for row in exported["comparisons"]] == ["0001", "2026"]
        assert len(client.score("ann", [answer(1), answer(2)])) == 2
        client.rebuild()
        client.forget("ann")
        assert client.record(Comparison(user_id="bob", chosen=answer(1), rejected=answer(2))).accepted


@pytest.mark.parametrize(
    "database",
    [
        ("ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'", None),
        ("", "client_encoding = 'WIN1252'"),
        ("", "datestyle = 'SQL, DMY'"),
        ("", "datestyle = 'German, DMY'"),
        ("", "datestyle = 'Postgres, MDY'"),
        ("", "timezone = 'America/New_York'"),
        ("", "timezone = 'Asia/Kathmandu'"),
        ("", "standard_conforming_strings = off"),
    ],
    indirect=True,
    ids=lambda found: found[1] or found[0][:20],
)
def test_settings_of_a_database(database: str, embedded_bundle: Bundle) -> None:
    every_call(database, embedded_bundle)


@pytest.mark.parametrize(
    ("name", "value"), [("PGCLIENTENCODING", "LATIN1"), ("PGCLIENTENCODING", "SQL_ASCII"), ("PGDATESTYLE", "SQL")]
)
def test_settings_of_the_environment(
    name: str, value: str, postgres_url: str, embedded_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    every_call(postgres_url, embedded_bundle)


@pytest.mark.parametrize("database", [("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'", None)], indirect=True)
def test_what_an_encoding_cannot_hold(database: str, embedded_bundle: Bundle) -> None:
    def said(text: str) -> Comparison:
        return Comparison(user_id="ann", chosen=Response(text=text, embedding=[1, 0, 0, 0, 0, 0]), rejected=latin)

    latin = Response(text="été", embedding=[0, 1, 0, 0, 0, 0])
    with Client(database, bundle=embedded_bundle) as client:
        assert client.record(said("plain")).accepted
        with pytest.raises(DatabaseError, match="encoding"):
            client.record(said("😀"))
        assert client.personalize("ann").comparisons == 1
        assert client.export_user("ann")["comparisons"][0]["rejected"]["text"] == "été"


def test_engines_of_hosts_with_sessions_of_their_own(postgres_url: str, embedded_bundle: Bundle) -> None:
    from psycopg.rows import dict_row

    options = "-c standard_conforming_strings=off -c datestyle=SQL,DMY -c timezone=Asia/Kathmandu"
    engine = sa.create_engine(postgres_url, connect_args={"options": options})
    with engine.connect() as connection:  # SQLAlchemy itself asks for the server's version at first
        assert connection.exec_driver_sql("SHOW standard_conforming_strings").scalar() == "off"

    @sa.event.listens_for(engine, "checkout")
    def return_dicts(connection: Any, *_: object) -> None:
        connection.row_factory = dict_row

    every_call(engine, embedded_bundle)
    with engine.connect() as connection:
        assert connection.connection.driver_connection.row_factory is dict_row  # type: ignore[union-attr]
    engine.dispose()


def test_the_longest_ids_fit_into_every_index(postgres_url: str, embedded_bundle: Bundle) -> None:
    rng = random.Random(0)

    def longest() -> str:  # not compressible, as PostgreSQL would do
        return "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(255))

    user_id, sides = longest(), {"chosen": answer(1), "rejected": answer(2)}
    with Client(postgres_url, bundle=embedded_bundle, tenant=longest()) as client:
        assert client.record(Comparison(user_id=user_id, event_id=longest(), **sides)).accepted
        assert client.personalize(user_id).comparisons == 1


def test_missing_rows_are_no_contention(postgres_url: str, embedded_bundle: Bundle) -> None:
    with Client(postgres_url, bundle=embedded_bundle) as client:
        client.record(Comparison(user_id="ann", chosen=answer(1), rejected=answer(2)))
    engine = sa.create_engine(postgres_url)
    database = Database(engine, Settings())
    with pytest.raises(DatabaseError, match="refer to are missing") as caught:
        database.run(lambda connection: connection.execute(sa.text("DELETE FROM mrm_items")), write=True)
    assert not isinstance(caught.value, ContentionError)
    engine.dispose()
