"""The examples in docstrings of public classes run, and each class that a host constructs has one."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import mrm_sdk
import mrm_sdk.data
import mrm_sdk.evaluation
import mrm_sdk.training
from tests.conftest import Finished

CONSTRUCTED = {
    "AsyncClient",
    "Bundle",
    "Client",
    "Comparison",
    "Ranking",
    "Rating",
    "RemoteEncoder",
    "Response",
    "ScoreRequest",
    "Settings",
    "Thumb",
    "TrainingConfig",
}
OBJECTS = {
    name: getattr(package, name)
    for package in (mrm_sdk, mrm_sdk.data, mrm_sdk.evaluation, mrm_sdk.training)
    for name in package.__all__
}
EXAMPLES = sorted(name for name, value in OBJECTS.items() if ">>>" in (getattr(value, "__doc__", None) or ""))


def test_each_class_that_a_host_constructs_has_an_example() -> None:
    assert set(EXAMPLES) >= CONSTRUCTED


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs(name: str, demo: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine").symlink_to(demo.folder / "mrm-demo" / "bundle")
    monkeypatch.chdir(tmp_path)
    (test,) = [test for test in doctest.DocTestFinder(recurse=False).find(OBJECTS[name], name) if test.examples]
    results = doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF).run(test)
    assert (results.failed, results.attempted > 0) == (0, True)
