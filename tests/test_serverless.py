"""The example of a serverless handler, in a process that may write nothing but its temporary folder and is frozen."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mrm_sdk.bundle import Bundle
from mrm_sdk.client import Client
from tests.conftest import ROOT, mrm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, and takes rights from root"),
]

ANSWERS = ["Yes. Do it today.", "It may depend on several things; perhaps check with a colleague first."]

# Root writes where no mode lets it, unless that right (CAP_DAC_OVERRIDE) is taken for good from what it starts.
CONFINE = """
import ctypes, os, sys
if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).prctl(24, 1, 0, 0, 0):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.executable, [sys.executable, "-W", "error", "-c", *sys.argv[1:]])
"""
SERVE = """
import json, os, sys
for folder in (".", os.environ["HOME"], os.environ["BUNDLE"], "mrm_sdk", "migrations/versions"):
    try:
        open(os.path.join(folder, "file"), "w")
    except PermissionError:
        continue
    sys.exit(f"{folder} can be written")

from serverless import handler
import mrm_sdk
assert mrm_sdk.__file__.startswith(os.getcwd()), mrm_sdk.__file__
for line in sys.stdin:
    print(json.dumps(handler(json.loads(line), None)), flush=True)
"""


class Function:
    """One process of the platform's, with the example deployed in a folder that it can only read."""

    def __init__(self, place: Path, bundle: Path, database: str | None) -> None:
        self.code, self.home, self.temporary, self.bundle = (
            place / name for name in ("code", "home", "temporary", "bundle")
        )
        for folder in (self.code, self.home, self.temporary):
            folder.mkdir()
        # Without compiled files, which Python would like to write.
        for name in ("mrm_sdk", "migrations"):
            shutil.copytree(ROOT / name, self.code / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "examples" / "serverless.py", self.code)
        shutil.copytree(bundle, self.bundle)
        for folder in (self.code, self.home, self.bundle):
            for path in (*folder.rglob("*"), folder):
                path.chmod(0o555 if path.is_dir() else 0o444)
        self._before = self._read_only()
        environment = {"HOME": str(self.home), "TMPDIR": str(self.temporary), "BUNDLE": str(self.bundle)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", CONFINE, SERVE],
            cwd=self.code,
            env=environment | ({"DATABASE_URL": database} if database else {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    def _read_only(self) -> dict[Path, tuple[int, int]]:
        """Everything where nothing may be written, with its times and sizes."""
        paths = [path for folder in (self.code, self.home, self.bundle) for path in (folder, *folder.rglob("*"))]
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}

    def begin(self, event: dict[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(event) + "\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, Any]:
        assert self._process.stdout
        assert self._process.stderr
        return json.loads(self._process.stdout.readline() or pytest.fail(self._process.stderr.read()))

    def invoke(self, event: dict[str, Any]) -> dict[str, Any]:
        self.begin(event)
        return self.end()

    def freeze(self) -> None:
        """Stops it, as a platform does between invocations; returns once it stands still."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    @property
    def open_files(self) -> set[str]:
        """What it has open beside its pipes."""
        found = set()
        for path in Path(f"/proc/{self._process.pid}/fd").iterdir():
            found.add(os.readlink(path).partition(":")[0])
        return found - {"pipe"}

    def kill(self) -> None:
        """Ends it as a platform does, whatever it is doing."""
        self._process.kill()
        self._process.communicate()

    def stop(self) -> None:
        """Ends it, and looks whether all is where it was."""
        _, errors = self._process.communicate(timeout=60)
        assert (errors, self._process.returncode) == ("", 0)
        assert self._read_only() == self._before


def asked(number: int = 0, chosen: int = 0) -> dict[str, Any]:
    feedback = {"event_id": f"e{number}", "chosen": ANSWERS[chosen], "rejected": ANSWERS[1 - chosen], "prompt": "Fern?"}
    return {"user_id": "ada", "prompt": "Router?", "responses": ANSWERS, "feedback": feedback}


@pytest.fixture
def start(tmp_path: Path, text_bundle: Bundle) -> Iterator[Callable[[str | None], Function]]:
    started: list[Function] = []

    def start(database: str | None) -> Function:
        started.append(Function(tmp_path, text_bundle.path, database))
        return started[-1]

    yield start
    for function in started:
        function.kill()


class Watching:
    """Looks at a PostgreSQL from outside."""

    def __init__(self, url: str) -> None:
        given = sa.make_url(url)
        self.name, self.engine = given.database, sa.create_engine(given.set(database="postgres"))

    def ask(self, what: str, where: str = "true") -> list[Any]:
        query = f"SELECT {what} FROM pg_stat_activity WHERE datname = '{self.name}' AND {where}"
        with self.engine.connect() as connection:
            return list(connection.exec_driver_sql(query).scalars())

    def wait(self, number: int, where: str = "true") -> None:
        """Until there are so many connections: the server ends one a moment after it was closed."""
        deadline = time.monotonic() + 20
        while len(found := self.ask("state", where)) != number:
            assert time.monotonic() < deadline, found
            time.sleep(0.02)


@pytest.fixture
def watching(postgres_url: str) -> Iterator[Watching]:
    watching = Watching(postgres_url)
    yield watching
    watching.engine.dispose()


def test_a_file_in_the_temporary_folder(start: Callable[[str | None], Function]) -> None:
    function = start(None)
    for number in range(3):
        assert function.invoke(asked(number, chosen=1)) == {"statusCode": 200, "body": json.dumps(ANSWERS[::-1])}
        assert not [file for file in function.open_files if "mrm.db" in file]
        assert [path.name for path in function.temporary.iterdir()] == ["mrm.db"]
        function.freeze()
        function.thaw()
    assert function.invoke({**asked(), "user_id": ""})["statusCode"] == 400
    (function.temporary / "mrm.db").write_text("something else" * 1000, encoding="utf-8")
    assert function.invoke(asked()) == {"statusCode": 503, "body": "Try again."}
    function.stop()


class TestPostgres:
    @pytest.fixture(autouse=True)
    def _tables(self, postgres_url: str) -> None:
        """What is done at deployment, for the preset leaves it to that."""
        assert mrm("db", "upgrade", "--database", postgres_url).code == 0

    def test_no_connection_stays(
        self, start: Callable[[str | None], Function], postgres_url: str, watching: Watching, text_bundle: Bundle
    ) -> None:
        function = start(postgres_url)
        for number in range(3):
            assert function.invoke(asked(number))["statusCode"] == 200
            watching.wait(0)
            assert "socket" not in function.open_files
        function.stop()
        assert list(function.temporary.iterdir()) == []
        with Client(postgres_url, bundle=text_bundle) as client:  # without the preset one is kept
            assert client.personalize("ada").comparisons == 3
            watching.wait(1)

    def test_frozen_between_invocations(
        self, start: Callable[[str | None], Function], postgres_url: str, watching: Watching
    ) -> None:
        function = start(postgres_url)
        before = function.invoke(asked())
        function.freeze()
        watching.ask("pg_terminate_backend(pid)")
        watching.wait(0)
        function.thaw()
        assert function.invoke(asked()) == before
        function.stop()

    def test_frozen_in_the_midst_of_one(
        self, start: Callable[[str | None], Function], postgres_url: str, watching: Watching, text_bundle: Bundle
    ) -> None:
        function = start(postgres_url)
        function.invoke(asked())
        host = sa.create_engine(postgres_url)
        with host.begin() as connection:
            connection.exec_driver_sql("LOCK TABLE mrm_comparisons IN ACCESS EXCLUSIVE MODE")
            function.begin(asked(1))
            watching.wait(1, "wait_event_type = 'Lock'")
            function.freeze()
            assert watching.ask("pg_terminate_backend(pid)", "wait_event_type = 'Lock'") == [True]
        host.dispose()
        function.thaw()
        # It does its work again on another connection, and an invocation that is repeated counts once.
        assert function.end() == function.invoke(asked(1)) == {"statusCode": 200, "body": json.dumps(ANSWERS)}
        watching.wait(0)
        function.stop()
        with Client(postgres_url, bundle=text_bundle) as client:
            assert client.personalize("ada").comparisons == 2
