"""Passwords in URLs: one that is not quoted is either understood or refused, and no part of it is ever shown."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import sqlalchemy as sa

from mrm_sdk import Bundle, Client
from mrm_sdk.errors import ConfigurationError
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database

PARTS = ("s3cret", "w0rd", "t0ken")


@pytest.mark.parametrize("signs", [*product("@/#?:", repeat=2)], ids="".join)
def test_no_part_of_a_raw_password_is_shown(signs: tuple[str, str]) -> None:
    password = PARTS[0] + signs[0] + PARTS[1] + signs[1] + PARTS[2]
    for rest in ("host/db", "host:5432/db?sslmode=require", "[::1]/db", "host"):
        try:
            database = Database(f"postgresql+psycopg://user:{password}@{rest}", Settings())
        except ConfigurationError as error:
            shown = str(error)
            assert "urllib.parse.quote" in shown
        else:
            assert database.engine.url.password == password
            shown = f"{database.url} {database!r} {database.engine!r}"
            database.close()
        assert not [part for part in PARTS if part in shown]


@pytest.mark.parametrize(
    ("url", "user", "host", "name"),
    [
        ("postgresql://me@server:pw@host/db", "me@server", "host", "db"),
        ("postgresql://u:p%40w@host/db", "u", "host", "db"),
        ("postgresql://u@host:5432/db", "u", "host", "db"),
        ("postgresql://u:pw@host/db?user=me@corp&sslmode=require", "u", "host", "db"),
        ("postgresql:///db?host=/var/run", None, None, "db"),
    ],
)
def test_what_parses(url: str, user: str | None, host: str | None, name: str) -> None:
    database = Database(url, Settings())
    parsed = database.engine.url
    assert (parsed.username, parsed.host, parsed.database) == (user, host, name)
    database.close()


def test_an_at_sign_in_the_name_of_a_file(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/a:b@c@d.db", Settings())
    with database.transaction():
        pass
    database.close()
    assert (tmp_path / "a:b@c@d.db").is_file()


def test_a_url_of_sqlalchemy(embedded_bundle: Bundle, tmp_path: Path) -> None:
    url = sa.URL.create("sqlite", database=str(tmp_path / "mrm.db"))
    with Client(url, bundle=embedded_bundle) as client:
        assert client.personalize("ann").comparisons == 0
    assert (tmp_path / "mrm.db").is_file()
    secret = sa.URL.create("postgresql", "u", "p@ss/w0rd#?", "host", database="db")
    database = Database(secret, Settings())
    assert database.engine.url.password == "p@ss/w0rd#?"
    assert "w0rd" not in database.url
    database.close()
