"""Commands that read other people's files: ``mrm check``, ``--column`` and ``--skip-bad``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mrm_sdk.bundle import Bundle
from mrm_sdk.cli.options import named_columns
from mrm_sdk.data.datasets import read_dataset
from mrm_sdk.errors import ConfigurationError
from tests.cli.test_commands import assert_error
from tests.conftest import Run, mrm, write_embedded_dataset

BAD_CSV = """Annotator;Prompt;Chosen;Rejected
ada;What is DNS?;A phone book.;See RFC 1034.
ada;What is DNS?;The same.;The same.
bob;What is DNS?;A phone book.
bob;What is DNS?;See RFC 1034.;A phone book.
"""
BAD_LINES = ("bad.csv, line 3: chosen and rejected are the same", "bad.csv, line 4: 3 columns where the header has 4")
NAMED = ("--column", "user_id=Annotator")


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    (tmp_path / "bad.csv").write_text(BAD_CSV)
    return tmp_path / "bad.csv"


@pytest.mark.parametrize("text", ["user_id", "user_id=", "=who", ""])
def test_what_names_no_column(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--column needs our name and your file's, as user_id=annotator"):
        named_columns([text])


def test_columns_are_named_once() -> None:
    assert named_columns(["user_id=a=b", "prompt = The prompt"]) == {"user_id": "a=b", "prompt": "The prompt"}
    with pytest.raises(ConfigurationError, match="names user_id twice"):
        named_columns(["user_id=a", "user_id=b"])


@pytest.mark.slow
def test_check_lists_all_problems(bad: Path) -> None:
    run = mrm("check", bad.name, *NAMED, cwd=bad.parent)
    assert (run.code, run.err) == (1, "")
    lines = run.out.splitlines()
    assert lines[0].split() == ["problems", "2"]
    assert all(line.strip().startswith(start) for line, start in zip(lines[1:3], BAD_LINES, strict=True))
    for label, value in (("users", "2"), ("texts", "2"), ("comparisons", "2"), ("ratings", "0")):
        assert [label, value] in [line.split() for line in lines]
    assert "enough       no: 0 users with 10 shots" in run.out


@pytest.mark.slow
def test_check_for_programs(bad: Path, tmp_path: Path) -> None:
    printed = mrm("check", bad, *NAMED, "--json", "-")
    assert (printed.code, printed.err) == (1, "")
    report = json.loads(printed.out)
    assert len(report["problems"]) == 2
    assert report["amounts"]["enough"] is False
    written = mrm("check", bad, *NAMED, "--json", tmp_path / "new" / "r.json")
    assert written.out.startswith("problems     2\n")
    assert json.loads((tmp_path / "new" / "r.json").read_text()) == report
    assert_error(mrm("check", bad, "--column", "user_id=anotator"), 2, "Did you mean 'Annotator'?")
    assert_error(mrm("check", bad, "--column", "userid=Annotator"), 2, "Did you mean 'user_id'?")
    assert_error(mrm("check", tmp_path / "nothing"), 2, "no data set at")
    in_the_way = mrm("check", bad, *NAMED, "--json", bad / "r.json")
    assert (in_the_way.code, "cannot become a file" in in_the_way.err) == (2, True)


@pytest.mark.slow
def test_check_finds_nothing(embedded: Path) -> None:
    run = mrm("check", embedded)
    assert (run.code, run.err) == (0, "")
    assert run.out.startswith("problems     0\nusers        40\n")


def assert_named(run: Run) -> None:
    """Each bad row is named on stderr, then their number."""
    assert run.code == 0, run.err
    lines = run.err.splitlines()
    assert all(line.startswith("left out: ") and start in line for line, start in zip(lines, BAD_LINES, strict=False))
    assert lines[2:] == ["2 bad rows left out"]


@pytest.mark.slow
def test_import_leaves_out_bad_rows_when_told(bad: Path, tmp_path: Path) -> None:
    arguments = ("import", bad, *NAMED, "--database", f"sqlite:///{tmp_path / 'a.db'}")
    assert_error(mrm(*arguments), 1, BAD_LINES[0])
    run = mrm(*arguments, "--skip-bad")
    assert_named(run)
    assert run.out.split()[:2] == ["accepted", "2"]


@pytest.mark.slow
def test_train_evaluate_and_compare_with_other_names(tmp_path: Path) -> None:
    folder = write_embedded_dataset(tmp_path / "d", users=8, pairs=4)
    sha256 = read_dataset(folder).sha256
    table, out, named = folder / "comparisons.csv", tmp_path / "b", ("--column", "user_id=annotator")
    lines = table.read_text().replace("user_id", "annotator").splitlines(keepends=True)
    table.write_text("".join([*lines[:2], "u1,support,i1,i1\n", "u1,support,i1\n", *lines[2:]]))
    assert_error(mrm("train", folder, "--out", out, *named), 1, "line 3: chosen and rejected are the same")
    run = mrm("train", folder, "--out", out, *named, "--skip-bad")
    assert run.code == 0
    assert [line.split(": ")[0] for line in run.err.splitlines()] == ["left out", "left out", "2 bad rows left out"]
    assert Bundle(out).manifest.training["data"]["sha256"] == sha256
    table.write_text("".join(lines))
    assert_error(mrm("evaluate", out, folder), 1, "no column user_id; found: annotator")
    assert mrm("evaluate", out, folder, *named, "--shots", "0,4").code == 0
    compared = ("compare", folder, "--unseen", write_other_users(folder, tmp_path / "other"), "--methods", "population")
    assert mrm(*compared, "--seeds", 0, "--shots", "0,4", *named).code == 0


def write_other_users(folder: Path, other: Path) -> Path:
    other.mkdir()
    (other / "items.jsonl").write_text((folder / "items.jsonl").read_text())
    (other / "comparisons.csv").write_text((folder / "comparisons.csv").read_text().replace("\nu", "\nv"))
    return other
