"""Opening databases, and what is said when that fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

from mrm_sdk.errors import ConfigurationError, DatabaseError, DatabaseUnavailableError, MrmError
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database, Store, upgrade
from tests.storage.events import FEATURES, event

SECRET = "s3cret-word"


def _use(url: str) -> None:
    database = Database(url, Settings(busy_timeout=0.1))
    try:
        with database.transaction() as connection:
            connection.exec_driver_sql("SELECT 1")
    finally:
        database.close()


def failure(url: str, kind: type[MrmError]) -> str:
    """Opens a database that cannot be opened; returns what is said about it."""
    with pytest.raises(kind) as caught:
        _use(url)
    return str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mrm.db",
        "/var/lib/mrm.db",
        f"postgresql://u:{SECRET}@host:no-port/db",
        f"postgresql://u:{SECRET}@host:99999999/db",
        "sqlite:///mrm.db?timeout=soon",
    ],
)
def test_a_url_that_is_none(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = failure(url, MrmError)
    assert SECRET not in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "kind", ["mysql", "mysql+pymysql", "postgresql+asyncpg", "sqlite+aiosqlite", "postgresql+psycopg2", "nonsense"]
)
def test_another_kind_of_database(kind: str) -> None:
    message = failure(f"{kind}://u:{SECRET}@localhost/db", ConfigurationError)
    assert kind in message
    assert "sqlite://" in message
    assert SECRET not in message


@pytest.mark.parametrize("database", [None, 7, Path("mrm.db")])
def test_no_url_at_all(database: object) -> None:
    with pytest.raises(ConfigurationError):
        Database(database, Settings())  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_both_names_of_postgres_mean_psycopg_3(scheme: str) -> None:
    database = Database(f"{scheme}://u@host/db", Settings())
    assert database.engine.url.drivername == "postgresql+psycopg"
    database.close()


def test_nothing_is_opened_before_it_is_needed(tmp_path: Path, closed_port: int) -> None:
    for url in (f"sqlite:///{tmp_path / 'mrm.db'}", f"postgresql://u@127.0.0.1:{closed_port}/db"):
        Database(url, Settings()).close()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    message = failure(f"sqlite:///{tmp_path / 'no' / 'mrm.db'}", DatabaseUnavailableError)
    assert "check that the folder exists" in message


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("just words " * 200)
    message = failure(f"sqlite:///{path}", DatabaseUnavailableError)
    assert "the file holds something else" in message
    assert path.read_text() == "just words " * 200


def test_a_file_that_may_only_be_read(sqlite_url: str, tmp_path: Path) -> None:
    database = Database(sqlite_url, Settings())
    upgrade(database)
    database.close()
    # Root may write to any file, so the connection is what is read-only here.
    reader = Database(f"sqlite:///file:{tmp_path / 'mrm.db'}?mode=ro&uri=true", Settings())
    store = Store(reader, "acme")
    assert store.weights("ada", FEATURES) == (0, None)
    with pytest.raises(DatabaseUnavailableError, match="read-only; grant write permission"):
        store.add([event()])
    reader.close()


def test_a_lock_that_is_held_too_long(sqlite_url: str) -> None:
    holder, waiter = Database(sqlite_url, Settings()), Database(sqlite_url, Settings(busy_timeout=0))
    upgrade(holder)
    with (
        holder.transaction(write=True),
        pytest.raises(DatabaseUnavailableError, match="raise busy_timeout"),
        waiter.transaction(write=True),
    ):
        pytest.fail("two writers at once")
    # A reader does not wait.
    with holder.transaction(write=True):
        assert Store(waiter, "acme").weights("ada", FEATURES) == (0, None)
    holder.close()
    waiter.close()


@pytest.mark.parametrize("form", ["u:{}@127.0.0.1:{}/db", "127.0.0.1:{1}/db?user=u&password={0}"])
def test_a_postgres_that_is_not_there(form: str, closed_port: int) -> None:
    url = "postgresql+psycopg://" + form.format(SECRET, closed_port)
    message = failure(url, DatabaseUnavailableError)
    assert f"127.0.0.1:{closed_port}" in message
    assert "check that it runs" in message
    assert SECRET not in message


def test_the_password_is_masked() -> None:
    database = Database(f"postgresql+psycopg://u:{SECRET}@host/db", Settings())
    assert SECRET not in f"{database!r} {database.url} {vars(database)}"
    assert "***" in database.url
    database.close()


def test_sqlite_is_set_for_durability(sqlite_url: str) -> None:
    database = Database(sqlite_url, Settings(busy_timeout=7))
    with database.transaction() as one, database.transaction() as two:
        for connection in (one, two):
            found = {
                pragma: connection.exec_driver_sql(f"PRAGMA {pragma}").scalar()
                for pragma in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "secure_delete")
            }
            assert found == {
                "journal_mode": "wal",
                "synchronous": 2,
                "foreign_keys": 1,
                "busy_timeout": 7000,
                "secure_delete": 1,
            }
    database.close()


def test_a_failed_transaction_leaves_nothing(empty: Database) -> None:
    upgrade(empty)

    def fail_halfway() -> None:
        with empty.transaction(write=True) as connection:
            connection.exec_driver_sql("INSERT INTO mrm_users VALUES ('acme', 'ada', 1)")
            raise KeyError

    with pytest.raises(KeyError):
        fail_halfway()
    assert Store(empty, "acme").weights("ada", FEATURES) == (0, None)


def test_what_the_database_refuses_is_an_error_of_ours(empty: Database) -> None:
    with pytest.raises(DatabaseError) as caught, empty.transaction() as connection:
        connection.execute(sa.text("SELECT :word FROM nowhere"), {"word": SECRET})
    assert "nowhere" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_hosts_engine_stays_open() -> None:
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool, connect_args={"check_same_thread": False})
    database = Database(engine, Settings())
    upgrade(database)
    database.close()
    with engine.connect() as connection:
        assert sa.inspect(connection).has_table("mrm_users")
    engine.dispose()


@pytest.mark.parametrize(("size", "kind"), [(0, NullPool), (7, QueuePool)])
def test_the_size_of_the_pool(tmp_path: Path, size: int, kind: type) -> None:
    settings = Settings(pool_size=size)
    for url in (f"sqlite:///{tmp_path / 'mrm.db'}", "postgresql://u@host/db"):
        pool = Database(url, settings).engine.pool
        assert isinstance(pool, kind)
        assert not isinstance(pool, QueuePool) or pool.size() == size
    assert isinstance(Database("sqlite://", settings).engine.pool, StaticPool)  # all it holds is in one connection


def test_without_a_pool_nothing_stays_open(sqlite_url: str, tmp_path: Path) -> None:
    database = Database(sqlite_url, Settings(pool_size=0))
    upgrade(database)
    store = Store(database, "acme")
    for n in range(3):
        store.add([event(event_id=str(n))])
        assert store.weights("ada", FEATURES)[0]
        assert [path.name for path in tmp_path.iterdir()] == ["mrm.db"]
    database.close()


def test_an_address_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as libpq would: two minutes. Who says otherwise is heard."""

    def waits(url: str) -> object:
        database, found = Database(url, Settings()), []
        sa.event.listen(database.engine, "do_connect", lambda *given: found.append(given[3]) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            database.run(lambda _: None)
        return found[0].get("connect_timeout")

    assert waits("postgresql://u@host/db") == 10
    assert waits("postgresql://u@host/db?connect_timeout=3") == "3"
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "5")
    assert waits("postgresql://u@host/db") is None


def test_what_is_deleted_leaves_the_files(sqlite_url: str, tmp_path: Path) -> None:
    def kept() -> bool:
        return any(b"unmistakable" in path.read_bytes() for path in tmp_path.iterdir())

    def execute(statement: str) -> None:
        with database.transaction(write=True) as connection:
            connection.exec_driver_sql(statement)

    database = Database(sqlite_url, Settings())
    execute("CREATE TABLE t (x TEXT)")
    execute(f"INSERT INTO t VALUES ('before'), ('{'an unmistakable word ' * 20}'), ('after')")
    database.scrub()
    assert kept()
    execute("DELETE FROM t WHERE x LIKE 'an%'")
    with database.transaction() as reader:
        reader.exec_driver_sql("BEGIN")
        reader.exec_driver_sql("SELECT * FROM t").all()
        execute("INSERT INTO t VALUES ('more')")  # which the reader's moment does not have
        database.scrub()  # another process reads: not now, and no error
        assert kept()
    database.scrub()
    assert not kept()
    with database.transaction() as connection:
        assert connection.exec_driver_sql("SELECT x FROM t").scalars().all() == ["before", "after", "more"]
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000
    database.close()


def test_scrubbing_where_there_is_nothing_to_scrub(database: Database, closed_port: int, tmp_path: Path) -> None:
    database.scrub()
    assert Store(database, "acme").weights("ada", FEATURES) == (0, None)
    for url in (f"postgresql://u@127.0.0.1:{closed_port}/db", f"sqlite:///{tmp_path / 'no' / 'mrm.db'}"):
        Database(url, Settings()).scrub()


@pytest.mark.parametrize("begins", [False, True])
def test_a_hosts_engine_that_begins_transactions_itself(sqlite_url: str, begins: bool) -> None:
    """SQLAlchemy's documentation tells hosts of SQLite how to."""
    engine = sa.create_engine(sqlite_url)
    if begins:
        sa.event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    database = Database(engine, Settings())
    upgrade(database)
    store = Store(database, "acme")
    store.add([event()])
    assert store.export("ada")["counts"]["mrm_comparisons"] == 1
    with database.transaction(write=True), engine.connect() as other:
        other.exec_driver_sql("PRAGMA busy_timeout=0")
        with pytest.raises(sa.exc.OperationalError, match="locked"):
            other.exec_driver_sql("INSERT INTO mrm_users VALUES ('acme', 'bob', 1)")
    engine.dispose()


def test_a_hosts_engine_that_will_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql+psycopg://u@host/db"
    engine = sa.create_engine(url)
    for target in (
        engine.execution_options(isolation_level="AUTOCOMMIT"),
        sa.create_engine(url, isolation_level="AUTOCOMMIT"),
    ):
        with pytest.raises(ConfigurationError, match="READ COMMITTED"):
            Database(target, Settings())
    Database(engine, Settings())
    monkeypatch.setattr(engine.dialect, "name", "mysql")
    with pytest.raises(ConfigurationError, match="'mysql' is not supported"):
        Database(engine, Settings())


FORK = """
import os, sys
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database, Store, upgrade
from tests.storage.events import FEATURES, event

database = Database(sys.argv[1], Settings())
upgrade(database)
store = Store(database, "acme")
store.add([event(event_id="parent before")])
child = os.fork()
if not child:
    status = 1
    try:
        store.add([event(event_id="child")])
        status = 0 if "child" in store.feedback("ada", FEATURES).event_ids else 2
    finally:
        os._exit(status)
_, status = os.waitpid(child, 0)
store.add([event(event_id="parent after")])
print(os.waitstatus_to_exitcode(status), store.feedback("ada", FEATURES).event_ids)
database.close()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_has_connections_of_its_own(url: str) -> None:
    # In a process of its own: the threads of a test run must not be forked.
    done = subprocess.run(
        [sys.executable, "-c", FORK, url],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("0 ['child', 'parent after', 'parent before']\n", "")
