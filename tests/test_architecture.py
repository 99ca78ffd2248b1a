"""docs/architecture.md is true: its walks name what exists, and its rooms are the tree in the order of imports."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module
from inspect import getattr_static
from pathlib import Path

import pytest

from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
STEPS = sorted(set(re.findall(r"`(mrm_sdk[\w.]*):([\w.]+)`", TEXT)))
PACKAGE = ROOT / "mrm_sdk"


def test_there_are_three_walks() -> None:
    walks = TEXT.split("\n### ")[1:]
    assert len(walks) == 3
    for walk in walks:
        assert len(re.findall(r"`mrm_sdk[\w.]*:", walk)) >= 5


@pytest.mark.parametrize(("module", "name"), STEPS, ids=[f"{module}:{name}" for module, name in STEPS])
def test_each_step_exists(module: str, name: str) -> None:
    thing: object = import_module(module)
    assert getattr(thing, "__file__", None)
    for part in name.split("."):
        thing = getattr_static(thing, part)


def rooms() -> list[str]:
    return [name.rstrip("/") for name in re.findall(r"^\| `([\w/]+)` \|", TEXT, re.MULTILINE)]


def test_each_room_has_its_line_and_each_line_its_room() -> None:
    tree = {
        path.stem
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").is_file())
    }
    assert sorted(rooms()) == sorted(tree - {"__init__"})


def layers(name: str) -> list[list[str]]:
    """The layers of a contract, from the top; brackets mark parts that are still to come."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (contract,) = [contract for contract in contracts if contract["name"] == name]
    return [re.findall(r"[\w.]+", layer) for layer in contract["layers"]]


def test_the_rooms_stand_in_the_order_of_imports() -> None:
    order = {module: height for height, layer in enumerate(layers("Imports point only downward")) for module in layer}
    heights = [order[room] for room in rooms()]
    assert heights == sorted(heights)


OLD_WORDS = re.compile(r"\b(nobody|everybody|somebody|anybody|whoever)\b", re.IGNORECASE)


@pytest.mark.parametrize("folder", ["mrm_sdk", "docs", "examples", "export", "migrations", "tests", "."])
def test_the_language_is_plain(folder: str) -> None:
    """Users, callers and processes are named: a sentence about nobody in particular leaves its reader to guess."""
    paths = (ROOT / folder).glob("*.md") if folder == "." else (ROOT / folder).rglob("*.*")
    for path in paths:
        if path.suffix in {".py", ".md"} and path != Path(__file__):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                assert "negations" in line or not OLD_WORDS.search(line), f"{path}:{number}: {line.strip()}"
