"""What goes wrong under a host: disks that are full, files that are read-only, servers that go away.

Each time: an error that says what to do, or a success after all; nothing that was acknowledged is lost, nothing is
there twice, and what was refused can be recorded again.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from mrm_sdk.bundle import Bundle
from mrm_sdk.client import Client
from mrm_sdk.errors import DatabaseUnavailableError
from mrm_sdk.schemas.feedback import Comparison
from mrm_sdk.schemas.items import Response
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database
from tests.conftest import ROOT

SIDES = [Response(text=f"{n} " * 500, embedding=row) for n, row in enumerate(np.eye(6))]


def judged(n: int, user: str = "ada") -> Comparison:
    """The n-th judgement of a user; its texts are its own, so that each takes some room."""
    sides = (SIDES[(n + i) % 6].model_copy(update={"text": f"{user} {n} {SIDES[i].text}"}) for i in range(2))
    return Comparison(user_id=user, **dict(zip(("chosen", "rejected"), sides, strict=True)), event_id=f"{user} {n}")


def recorded(client: Client, events: Sequence[Comparison]) -> tuple[list[Comparison], list[Comparison], set[str]]:
    """Records one by one; what was taken, what was not, and what was said about it."""
    taken, refused, said = [], [], set()
    for event in events:
        try:
            client.record(event)
            taken.append(event)
        except DatabaseUnavailableError as error:
            refused.append(event)
            said.add(str(error))
    return taken, refused, said


def whole(client: Client, events: Sequence[Comparison], bundle: Bundle) -> bool:
    """Whether these events, and no others, are there once each, and the users' weights are what they make."""
    with Client("sqlite://", bundle=bundle) as other:
        other.record_many(events)
        for user in {event.user_id for event in events}:
            stored = sorted(row["event_id"] for row in client.export_user(user)["comparisons"])
            assert stored == sorted(event.event_id for event in events if event.user_id == user)
            mine, expected = client.personalize(user), other.personalize(user)
            assert mine.comparisons == expected.comparisons == len(stored)
            np.testing.assert_allclose(mine.weights, expected.weights, rtol=1e-6, atol=1e-9)
    return True


# --- Disks that are full


def test_a_full_sqlite(sqlite_url: str, embedded_bundle: Bundle) -> None:
    events, most = [judged(n) for n in range(60)], 1_000_000
    with Client(sqlite_url, bundle=embedded_bundle) as client:
        engine = client._database.engine

        def limit(connection: Any, *_: Any) -> None:
            connection.execute(f"PRAGMA max_page_count={most}").fetchall()

        sa.event.listen(engine, "checkout", limit)
        client.record_many(events[:10])
        with engine.connect() as connection:
            most = connection.exec_driver_sql("PRAGMA page_count").scalar_one() + 8
        taken, refused, said = recorded(client, events[10:])
        assert taken
        assert refused
        assert all("disk is full. What to do: free some space" in each for each in said)
        most = 1_000_000
        assert whole(client, events[:10] + taken, embedded_bundle)
        again = client.record_many(events)
        assert (again.accepted, again.duplicates) == (len(refused), 10 + len(taken))
        assert whole(client, events, embedded_bundle)


FULL = """
import os, resource, sys
from mrm_sdk import Client, Settings
from tests.storage.test_faults import judged, recorded

with Client(sys.argv[1], bundle=sys.argv[2]) as client:
    client.record(judged(0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    taken, refused, said = recorded(client, [judged(n) for n in range(1, 100)])
    assert refused and all("size of files was met" in each or "free some space" in each for each in said), said
    # Reads are served.
    assert len(client.score("bob", [judged(0).chosen])) == 1
print(*(event.event_id for event in taken), sep=",")
os._exit(0)
"""


def child(script: str, *arguments: object, **options: Any) -> str:
    """Runs a script in a process of its own, which cannot write what permissions forbid even where root runs it."""
    drop = (
        "import ctypes, os, sys\n"
        "if sys.platform == 'linux':\n"
        "    for capability in (1, 2, 3): ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)\n"  # PR_CAPBSET_DROP
        "os.execv(sys.executable, [sys.executable, '-W', 'error', *sys.argv[1:]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", drop, "-c", script, *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
        **{"cwd": ROOT, **options},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
def test_a_process_that_may_write_no_more(sqlite_url: str, embedded_bundle: Bundle) -> None:
    taken = {0, *(int(name.split()[1]) for name in child(FULL, sqlite_url, embedded_bundle.path).split(",") if name)}
    with Client(sqlite_url, bundle=embedded_bundle) as client:
        assert whole(client, [judged(n) for n in sorted(taken)], embedded_bundle)
        again = client.record_many(judged(n) for n in range(100))
        assert (again.accepted, again.duplicates) == (100 - len(taken), len(taken))
        assert whole(client, [judged(n) for n in range(100)], embedded_bundle)


def test_a_full_postgres(postgres_url: str, embedded_bundle: Bundle) -> None:
    events = [judged(n) for n in range(12)]
    with Client(postgres_url, bundle=embedded_bundle) as client:
        client.record_many(events[:4])
        with client._database.transaction() as connection:
            # The server's own code for it; nothing else of a full disk can be had here.
            connection.exec_driver_sql(
                "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "IF (SELECT count(*) FROM mrm_comparisons) >= 7 THEN "
                "RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END IF; RETURN NEW; END $$"
            )
            connection.exec_driver_sql(
                "CREATE TRIGGER full_disk BEFORE INSERT ON mrm_comparisons FOR EACH ROW EXECUTE FUNCTION full_disk()"
            )
        taken, refused, said = recorded(client, events[4:])
        assert (len(taken), len(refused), len(said)) == (3, 5, 1)
        assert "What to do: free some space on the server" in said.pop()
        assert whole(client, events[:7], embedded_bundle)
        with client._database.transaction() as connection:
            connection.exec_driver_sql("DROP FUNCTION full_disk CASCADE")
        assert client.record_many(events).accepted == 5
        assert whole(client, events, embedded_bundle)


# --- Databases that may only be read


READ_ONLY = """
import sys
from mrm_sdk import Client, DatabaseUnavailableError
from tests.storage.test_faults import judged

with Client(sys.argv[1], bundle=sys.argv[2]) as client:
    print(client.score("ada", [judged(0).chosen, judged(0).rejected]).tolist(), client.personalize("ada").revision)
    for change in (lambda: client.record(judged(9)), lambda: client.forget("ada")):
        try:
            change()
        except DatabaseUnavailableError as error:
            assert "read-only" in str(error), error
        else:
            raise AssertionError("written")
    assert client.personalize("ada").comparisons == 3
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
@pytest.mark.parametrize("folder", [0o755, 0o555], ids=["file", "folder"])
def test_a_sqlite_that_may_only_be_read(tmp_path: Path, embedded_bundle: Bundle, folder: int) -> None:
    home = tmp_path / "place"
    home.mkdir()
    file = home / "mrm.db"
    url = f"sqlite:///{file}"
    with Client(url, bundle=embedded_bundle) as client:
        client.record_many(judged(n) for n in range(3))
        scores = client.score("ada", [judged(0).chosen, judged(0).rejected]).tolist()
    before = file.read_bytes()
    file.chmod(0o444)
    home.chmod(folder)
    try:
        assert child(READ_ONLY, url, embedded_bundle.path) == f"{scores} 1"
    finally:
        home.chmod(0o755)
    assert file.read_bytes() == before


def test_a_file_that_is_only_read_may_be_written_by_others(tmp_path: Path) -> None:
    """Where this process cannot write it takes a file as finished, but not for longer than one transaction."""
    file = tmp_path / "mrm.db"
    writer = Database(f"sqlite:///{file}", Settings())
    with writer.transaction(write=True) as connection:
        connection.exec_driver_sql("CREATE TABLE t (x INTEGER)")
    writer.close()
    reader = Database(f"sqlite:///{file}", Settings(), read_only=True)
    query = "SELECT count(*) FROM t"
    for n in range(3):
        with reader.transaction() as connection:
            assert connection.exec_driver_sql(query).scalar() == n
        with writer.transaction(write=True) as connection:
            connection.exec_driver_sql("INSERT INTO t VALUES (1)")
    reader.close()
    writer.close()


def test_a_postgres_that_may_only_be_read(postgres_url: str, embedded_bundle: Bundle) -> None:
    with Client(postgres_url, bundle=embedded_bundle) as client:
        client.record_many(judged(n) for n in range(3))
        weights = client.personalize("ada").weights
        with client._database.transaction() as connection:
            connection.exec_driver_sql(
                f"ALTER DATABASE {client._database.engine.url.database} SET default_transaction_read_only = on"
            )
    with Client(postgres_url, bundle=embedded_bundle) as client:
        np.testing.assert_array_equal(client.personalize("ada").weights, weights)
        assert client.score("ada", SIDES).shape == (6,)
        for change in (lambda: client.record(judged(9)), lambda: client.forget("ada")):
            with pytest.raises(DatabaseUnavailableError, match=r"read-only.*the URL of the primary server"):
                change()
        assert client.personalize("ada").comparisons == 3


def test_a_damaged_file(sqlite_url: str, tmp_path: Path, embedded_bundle: Bundle) -> None:
    with Client(sqlite_url, bundle=embedded_bundle) as client:
        client.record(judged(0))
    file = tmp_path / "mrm.db"
    file.write_bytes(file.read_bytes()[:4096] + b"\x55" * (file.stat().st_size - 4096))
    client = Client(sqlite_url, bundle=embedded_bundle)
    with client, pytest.raises(DatabaseUnavailableError, match=r"malformed.*restore a backup"):
        client.record(judged(1))
