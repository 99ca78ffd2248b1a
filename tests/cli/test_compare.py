"""``mrm compare`` as users call it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mrm_sdk.evaluation.methods import METHODS
from tests.conftest import mrm, write_embedded_dataset
from tests.evaluation.known_methods import assert_self_contained

pytestmark = pytest.mark.slow

FEW = ("--folds", 2, "--seeds", "0", "--shots", "0,5")


def test_compare_prints_and_saves(tmp_path: Path) -> None:
    data = write_embedded_dataset(tmp_path / "d", users=12)
    out, html = tmp_path / "new" / "c.json", tmp_path / "c.html"
    run = mrm("compare", data, *FEW, "--methods", "population,per-user", "--json", out, "--report", html)
    assert (run.code, run.err) == (0, ""), run.err
    results = json.loads(out.read_text())
    assert [method["name"] for method in results["methods"]] == ["population", "per_user"]
    population, alone = results["methods"]
    assert [point["shots"] for point in alone["points"]] == [0, 5]
    assert alone["points"][1]["gain"]["low"] > 0  # tastes differ, so one's own comparisons help …
    assert population["points"][1]["gain"]["difference"] == 0  # … for all users
    assert f"{100 * alone['points'][1]['accuracy']:.1f}" in run.out
    assert max(map(len, run.out.splitlines())) <= 80
    assert_self_contained(html.read_text())
    again = mrm("compare", data, *FEW, "--methods", "population,per-user").out
    assert [line for line in again.splitlines() if "seconds" not in line] == [
        line for line in run.out.splitlines() if "seconds" not in line
    ]


def test_compare_on_unseen_users(tmp_path: Path) -> None:
    data, same = (write_embedded_dataset(tmp_path / name, users=8) for name in "ab")
    call = ("--seeds", "0", "--shots", "0,5", "--methods", "population")
    run = mrm("compare", data, "--unseen", same, *call)
    assert (run.code, "Users are in both data sets (8, by their ids)" in run.err) == (1, True)
    table = same / "comparisons.csv"
    table.write_text(table.read_text().replace("\nu", "\nnew-u"))
    run = mrm("compare", data, "--unseen", same, *call)
    assert (run.code, run.err) == (0, "")
    assert "8 unseen users, judged by fits to 8 others (seed 0)." in run.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "best"), "no method 'best'; use some of population"),
        (("--methods", ""), "no method ''"),
        (("--folds", "-1"), "Folds must be 2 or more"),
        (("--folds", "99"), "at most the 40 users"),
        (("--seeds", "a"), "--seeds needs whole numbers"),
        (("--seeds", "0,0"), "Seeds must be distinct"),
        (("--shots", "2,-1"), "0 or more"),
        (("--encoder", "gpt"), "no encoder 'gpt'"),
        (("--json", "."), "cannot become a file"),
        pytest.param(
            ("--report", "/proc/c.html", *FEW, "--methods", "population"),
                "/proc/c.html cannot become a file (No such file or directory); choose another place.",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="/proc refuses new files even to root"),
        ),
    ],
)  # fmt: skip
def test_wrong_calls(embedded: Path, arguments: tuple[object, ...], message: str) -> None:
    run = mrm("compare", embedded, *arguments)
    assert (run.code, run.err.startswith("error: "), message in run.err) == (2, True, True), run.err
    assert "Traceback" not in run.err


def test_all_methods_are_compared_by_default() -> None:
    shown = mrm("compare", "--help", TERM="dumb", COLUMNS="300").out
    assert all(name.replace("_", "-") in shown for name in METHODS)


@pytest.mark.shared
def test_compare_on_real_people(four_questions: Path, tmp_path: Path) -> None:
    """Methods, on few people: what is asked is that they run, and that they learn from the labels."""
    out = tmp_path / "c.json"
    data = four_questions / "train"
    methods = [
        "population",
        "per_user",
        "in_context",
        "paper",
        "newton",
    ]  # lore takes a minute, and is tested elsewhere
    names = ",".join(methods)
    run = mrm("compare", data, "--methods", names, "--folds", 2, "--seeds", "0", "--shots", "0,10,40", "--json", out)
    assert (run.code, run.err) == (0, ""), run.err
    results = {method["name"]: method["points"][-1] for method in json.loads(out.read_text())["methods"]}
    assert list(results) == methods
    assert all(point["accuracy"] > 0.5 for point in results.values())
    assert all(results[name]["flip_drop"]["low"] > 0 for name in ("per_user", "newton"))
