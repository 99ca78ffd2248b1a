"""The surface of the package: what it exports, what importing it costs, and what its wheel holds."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import mrm_sdk
from mrm_sdk import errors
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

PUBLIC = {
    "AsyncClient", "Bundle", "Client", "Comparison", "Counted", "Forgotten", "Limits", "Message", "Pruned", "Ranked",
    "Ranking", "Rating", "Rebuilt", "Recorded", "Refusal", "RefusedEvent", "RemoteEncoder", "Response", "ScoreRequest",
    "Settings", "Thumb", "UserReward", "UserSummary", "WeightsSummary", "__version__",
}  # fmt: skip
HEAVY = {
    "torch",
    "numpy",
    "pydantic",
    "onnxruntime",
    "sqlalchemy",
    "transformers",
    "alembic",
    "onnx",
    "tokenizers",
    "httpx",
    "rich",
}


def test_exports() -> None:
    tree = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert set(mrm_sdk.__all__) == PUBLIC | tree
    assert all(getattr(mrm_sdk, name) is not None for name in mrm_sdk.__all__)
    assert sorted(mrm_sdk.__all__) == dir(mrm_sdk)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mrm_sdk.nothing


def test_every_error_is_ours_and_in_the_picture() -> None:
    drawn = errors.__doc__ or ""
    for name, value in vars(errors).items():
        if isinstance(value, type):
            assert issubclass(value, errors.MrmError)
            assert name in drawn
            assert value.exit_code in (1, 2)


def test_importing_loads_nothing_heavy_and_opens_nothing(tmp_path: Path) -> None:
    run = subprocess.run(
        [
            sys.executable,
            "-X",
            "importtime",
            "-c",
            "import mrm_sdk, os, threading; assert threading.active_count() == 1",
        ],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in run.stderr.splitlines() if "|" in line}
    assert "mrm_sdk" in loaded
    assert not loaded & HEAVY
    assert not list(tmp_path.iterdir())


def test_the_house_is_in_order() -> None:
    for path in (*(ROOT / "mrm_sdk").rglob("*.py"), *(ROOT / "tests").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 400, f"{path} is too long"
        assert path.stem not in {"utils", "helpers", "common", "misc"}
        names = {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)}
        assert not [name for name in names if name.endswith("Manager")]
        if text.strip():
            assert ast.get_docstring(ast.parse(text)), f"{path} does not say what it is for"


def test_migrations_stand_alone() -> None:
    for path in (ROOT / "migrations" / "versions").glob("*.py"):
        assert "mrm_sdk" not in path.read_text(encoding="utf-8")


SCRIPT = """
import sys
from pathlib import Path
import mrm_sdk
from mrm_sdk import Client, Comparison, Response

assert Path(sys.prefix) in Path(mrm_sdk.__file__).parents, mrm_sdk.__file__
with Client("sqlite:///wheel.db", bundle=sys.argv[1]) as client:
    chosen, rejected = Response(embedding=[1, 0, 0, 0, 0, 0]), Response(embedding=[0, 1, 0, 0, 0, 0])
    before = client.score("ada", [chosen, rejected])
    client.record(Comparison(user_id="ada", chosen=chosen, rejected=rejected))
    after = client.score("ada", [chosen, rejected])
    assert after[0] - after[1] > before[0] - before[1]
print("recorded and scored")
"""


def test_the_wheel_works_alone(tmp_path: Path, embedded_bundle: mrm_sdk.Bundle) -> None:
    """Built, installed into an empty environment outside the repository, and used there."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "mrm_sdk/_migrations/env.py" in names
    versions = {f"mrm_sdk/_migrations/versions/{path.name}" for path in (ROOT / "migrations/versions").glob("*.py")}
    assert versions <= set(names)
    assert {"mrm_sdk/py.typed", "mrm_sdk/simulation/corpus.jsonl"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "migrations", "export"))]

    home = tmp_path / "environment"
    venv.create(home, with_pip=True)
    bin_folder = home / ("Scripts" if os.name == "nt" else "bin")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    install = [
        bin_folder / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "-c",
        ROOT / "constraints.txt",
        f"{wheel}[cpu]",
    ]
    subprocess.run(install, check=True, cwd=tmp_path, env=environment)

    def run(*command: object) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "no tables -> 0004" in run(bin_folder / "mrm", "db", "upgrade", "--database", "sqlite:///wheel.db")
    assert "as they should be" in run(bin_folder / "mrm", "db", "check", "--database", "sqlite:///wheel.db")
    assert "recorded and scored" in run(bin_folder / "python", "-c", SCRIPT, embedded_bundle.path)
