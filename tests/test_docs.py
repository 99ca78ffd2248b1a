"""What the documentation says is run: snippets, commands, figures, examples and recipes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from mrm_sdk.bundle import Manifest
from mrm_sdk.cli.commands import app
from mrm_sdk.settings import Settings
from tests.conftest import ROOT, Finished, mrm, write_text_dataset

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def run(*arguments: object, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_readme_python_runs_as_it_stands(demo: Finished) -> None:
    (snippet,) = blocks(README, "python")
    assert snippet.count("\n") <= 8
    out = run("-W", "error", "-c", snippet, cwd=demo.folder)
    assert run("-W", "error", "-c", snippet, cwd=demo.folder) == out
    assert out.startswith("[Ranked(index=0, score=")
    assert out.index("Plug it in") < out.index("Verify the")


def test_readme_commands_run_as_they_stand_after_the_demo(demo: Finished, tmp_path: Path) -> None:
    for name in ("users", "new-users"):
        shutil.copytree(demo.folder / "mrm-demo" / name, tmp_path / "mrm-demo" / name)
    commands = [
        line.split("#")[0].split()
        for block in blocks(README, "sh")
        for line in block.splitlines()
        if line.startswith("mrm ")
    ]
    assert [command[1] for command in commands] == ["check", "train", "evaluate", "import", "doctor"]
    for command in commands:
        done = mrm(*command[1:], cwd=tmp_path)
        assert done.code == 0, done.err + done.out
    first, *_, last = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["results"]
    assert last["accuracy"] > first["accuracy"] + 0.05


def test_readme_figures_are_those_of_the_demo(demo: Finished) -> None:
    """Other machines round otherwise: within 2 points the README tells the truth."""
    rows = re.findall(r"^ +(\d+) +([\d.]+)% +([\d.]+)% +([\d.]+)%$", demo.run.out, re.MULTILINE)
    first, last = ([float(value) for value in row[1:]] for row in (rows[0], rows[-1]))
    told = [float(value) for value in re.findall(r"([\d.]+) %", README)]
    assert told == pytest.approx([last[0], first[0], last[2], last[1], first[1]], abs=2)


def test_make_targets_in_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def command_names() -> set[str]:
    root = typer.main.get_command(app)
    names = set()
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        names |= {f"{name} {sub}" for sub in getattr(command, "commands", {})} or {name}
    return names


def test_every_command_and_option_is_documented_and_the_other_way_round() -> None:
    documented = re.findall(
        r"^\| `mrm ([a-z]+(?: (?:upgrade|current|check|export))?)([^`]*)` \|", DOCS["commands.md"], re.MULTILINE
    )
    assert {name for name, _ in documented} == command_names()
    for name, options in documented:
        shown = set(re.findall(r"--[a-z]+", mrm(*name.split(), "--help", TERM="dumb", COLUMNS="200").out))
        assert set(re.findall(r"--[a-z]+", options)) == shown - {"--help"}, name


def test_every_setting_is_documented() -> None:
    documented = dict(re.findall(r"^\| `MRM_([A-Z_]+)` \|.*\| (\S+) \|$", DOCS["commands.md"], re.MULTILINE))
    expected = {name.upper(): str(field.default) for name, field in Settings.model_fields.items()}
    for name, default in documented.items():
        assert default.lower() == expected[name].lower().removesuffix(".0"), name
    assert documented.keys() == expected.keys()


def test_the_snippets_of_hosting(demo: Finished, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    commands, rebuild = blocks(DOCS["hosting.md"], "sh")
    many, snippet, use, tracing = blocks(DOCS["hosting.md"], "python")
    variables, *lines = commands.splitlines()
    assert variables.split()[2:] == ["MRM_DATABASE_SCHEMA=rewards"]

    def run_commands(text: list[str]) -> None:
        for line in text:
            done = mrm(*line.split()[1:], cwd=demo.folder, MRM_DATABASE=postgres_url, MRM_DATABASE_SCHEMA="rewards")
            assert done.code == 0, done.err + done.out

    run_commands(lines)
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    assert run("-W", "error", "-c", snippet, cwd=demo.folder) == "Yes.\n"
    run_commands(rebuild.splitlines())
    assert run("-W", "error", "-c", f"from mrm_sdk import Client\n{use}", cwd=demo.folder).startswith("items=0")
    assert run("-W", "error", "-c", tracing, cwd=demo.folder) == ""
    answers = run("-W", "error", "-c", f"from mrm_sdk import Client\n{many}", cwd=demo.folder).splitlines()
    assert [line.partition(" ")[0] for line in answers] == ["ada", "bob"]


def test_the_commands_of_privacy(tmp_path: Path) -> None:
    (commands,) = blocks(DOCS["privacy.md"], "sh")
    pair = ("--chosen", "See RFC 1034.", "--rejected", "A phone book.")
    assert mrm("record", "ada", *pair, "--database", "sqlite:///mrm.db", cwd=tmp_path).code == 0
    for line in commands.splitlines():
        done = mrm(*line.split()[1:], cwd=tmp_path)
        assert done.code == 0, done.err + done.out
    assert json.loads((tmp_path / "ada.json").read_text(encoding="utf-8"))["counts"]["mrm_comparisons"] == 1
    assert mrm("users", "--database", "sqlite:///mrm.db", cwd=tmp_path).out == ""


def test_links_lead_somewhere() -> None:
    pages = [ROOT / "export" / "README.md", *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!http)([^)#]+)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("name", ["quickstart.py", "async_app.py"])
def test_examples_on_the_demos_bundle(demo: Finished, name: str) -> None:
    out = run("-W", "error", ROOT / "examples" / name, cwd=demo.folder)
    if name == "quickstart.py":
        before, after = out.split("After three comparisons:")
        assert before.split(":", 1)[1].strip() != after.strip()
    else:
        assert sorted(out.splitlines())[0].startswith("user-0 is shown: Yes.")
        assert sorted(out.splitlines())[1].startswith("user-1 is shown: It may depend")


def test_example_with_own_embeddings(tmp_path: Path) -> None:
    out = run(ROOT / "examples" / "own_embeddings.py", cwd=tmp_path)
    correlations = [float(value) for value in re.findall(r"[+-]\d\.\d\d$", out, re.MULTILINE)]
    assert len(correlations) == 4
    assert correlations[-1] > correlations[0] + 0.2


def test_the_snippets_of_encoders(tmp_path: Path) -> None:
    (snippet,) = blocks(DOCS["encoders.md"], "python")
    assert run("-W", "error", "-c", snippet, cwd=tmp_path) == "(2, 3)\n"
    write_text_dataset(tmp_path / "mydata")
    for line in blocks(DOCS["encoders.md"], "sh")[0].splitlines():
        done = mrm(*line.split()[1:], cwd=tmp_path)
        assert done.code == 0, done.err + done.out
    assert Manifest.read(tmp_path / "models" / "mine").encoder.kind == "onnx"


def test_recipes_examples_and_experiments_are_all_listed_and_tested() -> None:
    folder = ROOT / "tests"
    files = (
        folder / "conftest.py",
        folder / "test_docs.py",
        folder / "test_serverless.py",
        folder / "test_fastapi.py",
        *(folder / "export").glob("*.py"),
    )
    tested = "".join(path.read_text(encoding="utf-8") for path in files)
    listed = (ROOT / "export" / "README.md").read_text(encoding="utf-8")
    for path in (*(ROOT / "examples").glob("*.py"), *(ROOT / "export").rglob("*.py")):
        assert path.name in tested
        assert "examples" in path.parts or path.name in listed
