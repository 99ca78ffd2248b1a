"""What drivers say becomes an error of ours with a hint, and what may succeed later is tried again."""

from __future__ import annotations

import sqlite3

import psycopg
import pytest
import sqlalchemy as sa

from mrm_sdk import Bundle, Client, Comparison, Response
from mrm_sdk.errors import ContentionError, DatabaseError, DatabaseUnavailableError
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database
from mrm_sdk.storage.error_translation import translation


def refusal(code: str | int) -> sa.exc.SQLAlchemyError:
    """The error of a driver that speaks another language, as SQLAlchemy hands it on."""
    driver: Exception
    if isinstance(code, str):
        driver, base = psycopg.errors.lookup(code)("Nichts geht mehr\nZEILE 1: geheim"), psycopg.Error
    else:
        driver, base = sqlite3.DatabaseError("Nichts geht mehr"), sqlite3.Error
        driver.sqlite_errorcode = code  # type: ignore[attr-defined]
    wrapped = sa.exc.DBAPIError.instance("SELECT", {}, driver, base)
    assert isinstance(wrapped, sa.exc.SQLAlchemyError)
    return wrapped


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("25006", "primary server"),
        ("26000", "prepare_threshold"),
        ("3F000", "mrm db upgrade"),
        ("42501", "grant this role"),
        ("42P01", "mrm db upgrade"),
        ("53100", "free some space on the server"),
        ("53300", "lower pool_size"),
        ("55P03", "lock_timeout"),
        ("57014", "statement_timeout"),
        ("57P01", "stopping or starting"),
        ("57P03", "stopping or starting"),
        (sqlite3.SQLITE_BUSY, "busy_timeout"),
        (sqlite3.SQLITE_CANTOPEN, "check that the folder exists"),
        (sqlite3.SQLITE_CORRUPT, "restore a backup"),
        (sqlite3.SQLITE_FULL, "free some space"),
        (sqlite3.SQLITE_IOERR | 3 << 8, "the disk is full or failing"),
        (sqlite3.SQLITE_READONLY | 6 << 8, "grant write permission"),
    ],
)
def test_a_message_in_any_language_has_a_hint(code: str | int, hint: str) -> None:
    error = translation(refusal(code), "URL")
    assert type(error) is DatabaseUnavailableError
    assert str(error).startswith("The database URL is unavailable: Nichts geht mehr. What to do: ")
    assert hint in str(error)


def test_a_postgres_that_stops_for_reasons_of_its_own(postgres_url: str) -> None:
    """The codes are those of the server, not only of this test."""
    database = Database(postgres_url, Settings())
    for statements, hint in (
        (["SET LOCAL statement_timeout = 10", "SELECT pg_sleep(10)"], "statement_timeout"),
        (["SET LOCAL transaction_read_only = on", "CREATE TABLE t (x INTEGER)"], "read-only"),
        (["CREATE ROLE powerless_role", "SET LOCAL ROLE powerless_role", "CREATE SCHEMA s"], "grant this"),
        (["SELECT * FROM mrm_users"], "the tables are gone"),
    ):
        with pytest.raises(DatabaseUnavailableError, match=hint), database.transaction() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
    database.close()


def test_a_role_with_too_many_connections(postgres_url: str) -> None:
    database = Database(postgres_url, Settings())
    with database.transaction() as connection:
        connection.exec_driver_sql("DROP ROLE IF EXISTS mrm_few")
        connection.exec_driver_sql("CREATE ROLE mrm_few LOGIN CONNECTION LIMIT 1")
    url = sa.make_url(postgres_url).set(username="mrm_few").render_as_string(hide_password=False)
    first, second = Database(url, Settings()), Database(url, Settings())
    with first.transaction(), pytest.raises(DatabaseUnavailableError, match="lower pool_size"), second.transaction():
        pytest.fail("two connections")
    for each in (first, second):
        each.close()
    with database.transaction() as connection:
        connection.exec_driver_sql("DROP ROLE mrm_few")
    database.close()


def test_more_threads_than_connections(sqlite_url: str) -> None:
    engine = sa.create_engine(sqlite_url, pool_size=1, max_overflow=0, pool_timeout=0)
    database = Database(engine, Settings())
    with database.transaction(), pytest.raises(DatabaseUnavailableError, match="raise pool_size"):
        database.run(lambda _: pytest.fail("two connections"))
    engine.dispose()


@pytest.mark.parametrize("code", ["40001", "40P01"])
def test_what_others_did_first_is_done_again(code: str) -> None:
    database, tries = Database("sqlite://", Settings()), []

    def work(failures: int) -> int:
        tries.append(failures)
        if len(tries) <= failures:
            raise refusal(code)
        return len(tries)

    assert database.run(lambda _: work(4)) == 5
    tries.clear()
    with pytest.raises(ContentionError):
        database.run(lambda _: work(5))
    database.close()


def test_missing_rows_are_no_contention(sqlite_url: str, embedded_bundle: Bundle) -> None:
    """As on PostgreSQL (test_postgres_sessions.py)."""
    with Client(sqlite_url, bundle=embedded_bundle) as client:
        chosen, rejected = Response(embedding=[1, 0, 0, 0, 0, 0]), Response(embedding=[0, 1, 0, 0, 0, 0])
        client.record(Comparison(user_id="ann", chosen=chosen, rejected=rejected))
    database, tries = Database(sqlite_url, Settings()), []

    def work(connection: sa.Connection) -> None:
        tries.append(1)
        connection.execute(sa.text("DELETE FROM mrm_items"))

    with pytest.raises(DatabaseError, match="refer to are missing") as caught:
        database.run(work, write=True)
    assert not isinstance(caught.value, ContentionError)
    assert len(tries) == 1
    database.close()


def test_a_database_that_was_never_reached_is_asked_once(closed_port: int) -> None:
    database, attempts = Database(f"postgresql://u@127.0.0.1:{closed_port}/db", Settings()), []
    sa.event.listen(database.engine, "do_connect", lambda *given: attempts.append(given))
    with pytest.raises(DatabaseUnavailableError):
        database.run(lambda connection: connection.exec_driver_sql("SELECT 1"))
    assert len(attempts) == 1
