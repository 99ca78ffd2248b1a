"""The experiments behind the defaults run in their quick form."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT, SHARED, run_script

pytestmark = pytest.mark.slow


def run(name: str, *arguments: object, cwd: Path) -> str:
    """What an experiment prints."""
    done = run_script(ROOT / "export" / "experiments" / name, *arguments, cwd=cwd)
    assert done.code == 0, done.err
    return done.out


@pytest.mark.shared
def test_the_experiment_behind_the_defaults_runs(tmp_path: Path) -> None:
    names = "adam, 3 seeds as one;texts alone;hidden layer"
    out = run("choose_settings.py", SHARED / "jester" / "train", "--quick", "--only", names, cwd=tmp_path)
    rows = re.findall(r"^(\S.*?) +\|(?: \d\.\d{4}){6} +\d+ \|(?: \d\.\d{4}){5} +\d+$", out, re.MULTILINE)
    assert rows == names.split(";")


@pytest.mark.shared
def test_the_experiment_behind_handcrafted_features_runs(four_questions: Path, tmp_path: Path) -> None:
    out = run("choose_features.py", four_questions / "train", "--quick", cwd=tmp_path)
    assert "without" in out
    assert len(re.findall(r"0\.\d{4}", out)) >= 4


@pytest.mark.shared
def test_the_experiment_behind_the_rules_for_ratings_runs(tmp_path: Path) -> None:
    out = run("choose_ratings.py", SHARED / "jester" / "train", "--quick", cwd=tmp_path)
    rows = re.findall(r"^\S.*?((?: +0\.\d{4})+)$", out, re.MULTILINE)
    assert [len(row.split()) for row in rows] == [1] * 4 + [5] * 11 + [6] * 6


@pytest.mark.shared
def test_the_measurement_of_how_many_users_it_takes_runs(tmp_path: Path) -> None:
    out = run("measure_users.py", SHARED / "jester" / "train", "--quick", "--users", "10,100", cwd=tmp_path)
    rows = re.findall(r"^ +(\d+) \|(?: 0\.\d{4}){4} \| [+-]0\.\d{4} ± 0\.\d{4}$", out, re.MULTILINE)
    assert rows == ["10", "100"]


def test_the_measurement_of_drift_runs(tmp_path: Path) -> None:
    out = run("measure_drift.py", "--quick", cwd=tmp_path)
    changed, kept = out.split("tastes stay")
    for table in (changed, kept):
        rows = re.findall(r"^(none|\d+ days|none, .*?)((?: +0\.\d{4}(?: ± \d\.\d{3})?){7}) *$", table, re.MULTILINE)
        assert [name for name, _ in rows][:2] == ["none", "160 days"]
        assert len(rows) == 9
    # The row without a half-life at 60 further comparisons, where tastes stay and where they have changed.
    last = [float(re.findall(r"^none .*?(0\.\d{4}) *$", table, re.MULTILINE)[0]) for table in (kept, changed)]
    assert last[0] > last[1]


@pytest.mark.shared
@pytest.mark.parametrize("name", ["jester", "llmfao"])
def test_the_experiment_behind_the_threshold_runs(name: str, tmp_path: Path) -> None:
    out = run("choose_thresholds.py", SHARED / name / "train", "--quick", cwd=tmp_path)
    rows = re.findall(r"^[\d.]+ +[\d.]+ +((?:[+-]\d+\.\d\d ± \d+\.\d\d *){8})$", out, re.MULTILINE)
    assert len(rows) == 7


@pytest.mark.shared
def test_the_experiment_behind_repetition_runs(tmp_path: Path) -> None:
    out = run("choose_repetition.py", SHARED / "llmfao" / "train", "--quick", cwd=tmp_path)
    figures = r"((?:\d\.\d{4} \d\.\d{4} \d\.\d{3} \| ){6})([+-]\d\.\d{4} ± \d\.\d{4}), ([+-]\d\.\d{4})"
    shipped, sure, while_learning, in_full = re.findall(rf"^[a-z ]+ {figures} ± \d\.\d{{4}}$", out, re.MULTILINE)
    assert shipped[2] == "+0.0000"
    assert len({shipped[0], while_learning[0], in_full[0]}) == 3
    # Only probabilities differ where the covariance does.
    assert [cell.split()[0] for cell in sure[0].split(" | ")[:6]] == [
        cell.split()[0] for cell in shipped[0].split(" | ")[:6]
    ]
    assert sure[0] != shipped[0]
