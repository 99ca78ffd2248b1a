"""Commands as users call them: what they print, and what they say to wrong calls."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mrm_sdk import Client
from mrm_sdk.bundle import Bundle
from mrm_sdk.cli.commands import app
from mrm_sdk.cli.main import main
from mrm_sdk.cli.options import JsonOption, OnlyJsonOption
from mrm_sdk.cli.output import INTERRUPTED, require_file, show
from mrm_sdk.cli.stored import recorder
from mrm_sdk.errors import OutputError
from mrm_sdk.schemas.feedback import Comparison
from mrm_sdk.version import __version__
from tests.conftest import MRM, ROOT, Run, mrm, write_embedded_dataset


def assert_error(run: Run, code: int, message: str) -> None:
    """One line of ours on stderr, nothing on stdout, and the promised exit code."""
    assert run.code == code, run.err
    assert message in run.err
    assert run.err.startswith("error: ")
    assert "Traceback" not in run.err
    assert not run.out


@pytest.mark.slow
def test_version_and_help() -> None:
    assert mrm("--version").out == f"mrm-sdk {__version__}\n"
    for command in ("demo", "train", "evaluate", "import", "db", "doctor"):
        assert command in mrm("--help").out
    assert mrm("-h").out == mrm("--help").out
    assert mrm("train", "-h").code == 0
    assert "--install-completion" in mrm("-h").out
    assert mrm("nonsense").code == 2
    assert mrm("train").code == 2


@pytest.mark.slow
def test_train_and_evaluate(embedded: Path, tmp_path: Path) -> None:
    run = mrm("train", embedded, "--out", tmp_path / "b", "--seed", 3, "--json", "-")
    assert (run.code, run.err) == (0, ""), run.err
    manifest = json.loads(run.out)
    assert manifest["training"]["seed"] == 3
    assert manifest["fingerprint"] == Bundle(tmp_path / "b").fingerprint
    run = mrm(
        "evaluate", tmp_path / "b", embedded, "--shots", "0,6", "--json", tmp_path / "r.json", "--picture", tmp_path
    )
    assert (run.code, run.err) == (0, ""), run.err
    report = json.loads((tmp_path / "r.json").read_text())
    assert [point["shots"] for point in report["results"]] == [0, 6]
    assert f"{report['results'][1]['accuracy']:.4f}" in run.out
    assert (tmp_path / "accuracy.html").is_file()


@pytest.mark.slow
def test_train_tells_what_adapting_gains(embedded: Path, tmp_path: Path) -> None:
    run = mrm("train", embedded, "--out", tmp_path / "b")
    found = re.search(
        r"to 2, 10 and up to 40 comparisons \(their mean\):\n  texts that it knows +([\d.]+)% -> ([\d.]+)%", run.out
    )
    assert found is not None, run.out
    chosen = Bundle(tmp_path / "b").manifest.metrics["held_out_accuracy"]
    assert [float(share) for share in found.groups()] == [round(100 * chosen[key], 1) for key in ("before", "after")]
    assert chosen["after"] > chosen["before"] + 0.1
    assert "What would help" not in run.out
    published = mrm("train", embedded, "--out", tmp_path / "p", "--preset", "paper")  # sets no users aside
    assert f"Judge it on other users: mrm evaluate {tmp_path / 'p'} OTHERS" in published.out


@pytest.mark.slow
def test_train_says_what_would_help_where_adapting_does_not(tmp_path: Path) -> None:
    data = write_embedded_dataset(tmp_path / "d", users=30, pairs=4)
    rows = (data / "comparisons.csv").read_text().splitlines()
    rng = random.Random(0)
    noise = [",".join([*row.split(",")[:2], *rng.sample(row.split(",")[2:], 2)]) for row in rows[1:]]
    (data / "comparisons.csv").write_text("\n".join([rows[0], *noise]) + "\n")
    out = mrm("train", data, "--out", tmp_path / "b").out
    assert "Adapting did not help: this bundle gives all users the average user's reward." in out
    assert "more users: there are 30\n" in out
    assert "more comparisons of each user: there are 8 on average" in out
    assert "try another --encoder" in out
    assert max(map(len, out.splitlines())) <= 110


@pytest.mark.slow
def test_evaluate_prints_json_alone_to_stdout(embedded: Path, embedded_bundle: Bundle, tmp_path: Path) -> None:
    command = ("evaluate", embedded_bundle.path, embedded, "--shots", "0,6", "--picture", tmp_path, "--json")
    run = mrm(*command, "-")
    assert [point["shots"] for point in json.loads(run.out)["results"]] == [0, 6]
    assert "which flatters it" in run.err
    assert f"written  {tmp_path / 'accuracy.svg'}" in run.err
    assert_error(mrm(*command, tmp_path), 2, "cannot become a file")


def test_a_result_is_shown_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show("one line", {"value": 1}, None)
    assert capsys.readouterr() == ("one line\n", "")
    show("one line", {"value": 1}, tmp_path / "new" / "r.json")
    assert capsys.readouterr() == ("one line\n", "")
    assert json.loads((tmp_path / "new" / "r.json").read_text(encoding="utf-8")) == {"value": 1}
    show("one line", {"value": 1}, Path("-"))
    assert json.loads(capsys.readouterr().out) == {"value": 1}
    for fine in (None, Path("-"), tmp_path / "r.json", tmp_path / "no" / "such" / "r.json"):
        require_file(fine)
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "r.json"):
        with pytest.raises(OutputError, match="cannot become a file"):
            require_file(path)


def commands() -> dict[str, Any]:
    """All commands by name, groups and the root among them."""
    root: Any = typer.main.get_command(app)
    found = {"": root} | root.commands
    return found | {f"{name} {sub}": c for name, group in found.items() if name for sub, c in subcommands(group)}


def subcommands(group: Any) -> list[tuple[str, Any]]:
    return list(getattr(group, "commands", {}).items())


@pytest.mark.parametrize("name", sorted(commands()))
def test_help_fits_a_terminal_and_shows_no_type_of_flags(name: str) -> None:
    run = CliRunner().invoke(app, [*name.split(), "--help"], env={"TERM": "dumb", "COLUMNS": "80"})
    assert (run.exit_code, "--help" in run.output) == (0, True)
    assert max(map(len, run.output.splitlines())) <= 80
    assert "<bool>" not in run.output
    for parameter in commands()[name].params:
        if "--json" in parameter.opts:  # means the same in every command, but where JSON is all there is
            assert not parameter.is_flag
            option = OnlyJsonOption if name == "export" else JsonOption
            assert parameter.help == option.__metadata__[0].help  # type: ignore[attr-defined]  # Annotated's, at run time


@pytest.mark.slow
@pytest.mark.parametrize("hook", ["", "in a class"])
@pytest.mark.parametrize("module", ["typer", "torch"])
def test_ctrl_c_while_libraries_are_loaded(embedded: Path, tmp_path: Path, module: str, hook: str) -> None:
    pressed = "import os, signal\ndef press(*_): os.kill(os.getpid(), signal.SIGINT)\n"
    in_a_class = "class Name:\n    __set_name__ = press\nclass Building:\n    name = Name()\n"
    (tmp_path / f"{module}.py").write_text(pressed + (in_a_class if hook else "press()\n"))
    command = ("train", embedded, "--out", tmp_path / "b", "--checkpoint", tmp_path / "ck")
    run = mrm(*command, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert (run.code, run.out) == (130, "")
    assert run.err == f"{INTERRUPTED}\n"  # there is nothing to resume from yet


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp437", "koi8-r"])
def test_a_terminal_without_unicode(encoding: str, embedded: Path, embedded_bundle: Bundle, tmp_path: Path) -> None:
    judged = ("evaluate", embedded_bundle.path, embedded, "--shots", "0,6", "--json", tmp_path / "r.json")
    compared = ("compare", embedded, "--methods", "population,newton", "--seeds", 0, "--folds", 2, "--json")
    for command in (judged, (*compared, tmp_path / "c.json")):
        run = mrm(*command, PYTHONIOENCODING=f"{encoding}:strict")
        assert (run.code, run.err) == (0, "")
    assert json.loads((tmp_path / "r.json").read_text())["results"]
    assert json.loads((tmp_path / "c.json").read_text())["methods"]


@pytest.mark.slow
def test_import_twice_adds_nothing_and_features_come_later(
    embedded: Path, embedded_bundle: Bundle, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    first = json.loads(mrm("import", embedded, "--database", url, "--json", "-").out)
    assert (first["accepted"], first["duplicates"]) == (40 * 24, 0)
    again = mrm("import", embedded, MRM_DATABASE=url)
    assert (again.code, "duplicates  960" in again.out) == (0, True)
    encoded = f"sqlite:///{tmp_path / 'b.db'}"
    run = mrm("import", embedded, "--database", encoded, "--bundle", embedded_bundle.path)
    assert run.code == 0, run.err
    with Client(url, bundle=embedded_bundle) as late, Client(encoded, bundle=embedded_bundle) as early:
        assert late.personalize("u3").comparisons == 24
        assert late.personalize("u3").weights.tolist() == early.personalize("u3").weights.tolist()


@pytest.mark.slow
def test_import_leaves_out_ratings_beside_comparisons(tmp_path: Path) -> None:
    folder = write_embedded_dataset(tmp_path / "d", users=4, pairs=1)
    alone = mrm("import", folder, "--database", f"sqlite:///{tmp_path / 'a.db'}")
    (folder / "ratings.csv").write_text("user_id,item_id,rating\nu0,i0,1\n")
    both = mrm("import", folder, "--database", f"sqlite:///{tmp_path / 'b.db'}")
    assert (both.code, both.out, alone.err) == (0, alone.out, "")
    assert both.err == "ratings.csv is left out: the comparisons beside it are usually made from it\n"


@pytest.mark.slow
def test_import_says_what_it_refused(embedded: Path, embedded_bundle: Bundle, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    wide = write_embedded_dataset(tmp_path / "wide", dimension=7, users=4, pairs=1)
    run = mrm("import", wide, "--database", url, "--bundle", embedded_bundle.path)
    assert run.code == 1
    assert "refused     8" in run.out
    assert re.search(r"comparison 1 \(event \w+-1, user u\d\): An embedding has 7 numbers", run.out)


@pytest.mark.slow
def test_db_commands(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    for command in ("current", "check"):
        assert_error(mrm("db", command, "--database", url), 2, "a.db does not exist; check the path, or create it")
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.db").touch()
    assert mrm("db", "current", "--database", url).out == "no tables\n"
    assert_error(mrm("db", "check", "--database", url), 1, "mrm db upgrade")
    assert mrm("db", "upgrade", "--database", url).out == "no tables -> 0004\n"
    assert mrm("db", "upgrade", "--database", url).out == "up to date at 0004\n"
    assert mrm("db", "current", "--database", url).out == "0004\n"
    assert mrm("db", "check", "--database", url).out == "the tables are as they should be\n"
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("ALTER TABLE mrm_items ADD COLUMN extra TEXT")
    connection.close()
    run = mrm("db", "check", "--database", url)
    assert (run.code, "extra" in run.out) == (1, True)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals are POSIX")
def test_progress_bars_are_for_terminals_only(embedded: Path, tmp_path: Path) -> None:
    import pty
    import subprocess

    leader, follower = pty.openpty()
    command = [*MRM, "train", str(embedded), "--out", str(tmp_path / "b")]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command, stderr=follower, stdout=subprocess.DEVNULL, env=environment)
    os.close(follower)
    shown = b""
    while True:
        try:
            data = os.read(leader, 65536)
        except OSError:  # the other end was closed: the command has ended
            break
        if not data:
            break
        shown += data
    os.close(leader)
    assert process.wait() == 0
    assert b"meta-training" in shown
    assert mrm("train", embedded, "--out", tmp_path / "c").err == ""


def bad_file(folder: Path, text: str) -> Path:
    path = folder / "comparisons.jsonl"
    path.write_text(text)
    return path


@pytest.mark.slow
def test_bad_data_sets(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def train(data: Path) -> Run:
        return mrm("train", data, "--out", out)

    assert_error(train(tmp_path / "nothing"), 2, "no data set at")
    assert_error(train(bad_file(tmp_path, "")), 1, "holds no comparisons")
    assert_error(
        train(bad_file(tmp_path, '{"user_id": "u", "chosen": "a", "rejected": "b"}\noops\n')), 1, "line 2: not JSON"
    )
    nan = '{"user_id": "u", "chosen": {"embedding": [NaN]}, "rejected": {"embedding": [1]}}'
    assert_error(train(bad_file(tmp_path, nan)), 1, "line 1: Invalid Comparison")
    assert_error(train(write_embedded_dataset(tmp_path / "one", users=1)), 1, "at least 4 users")
    unknown = write_embedded_dataset(tmp_path / "unknown")
    with (unknown / "comparisons.csv").open("a") as file:
        file.write("u1,query,i1,i999\n")
    assert_error(train(unknown), 1, "line 962: rejected: unknown item id 'i999'")
    assert not out.exists()


@pytest.mark.slow
def test_bad_arguments(embedded: Path, embedded_bundle: Bundle, tmp_path: Path) -> None:
    assert_error(mrm("train", embedded, "--out", tmp_path / "x", "--preset", "best"), 2, "no preset 'best'")
    assert_error(mrm("train", embedded, "--out", tmp_path / "x", "--encoder", "gpt"), 2, "no encoder 'gpt'")
    assert_error(mrm("train", embedded, "--out", tmp_path / "x", "--seed", -1), 2, "seed must be 0 or more")
    assert_error(mrm("demo", "--seed", -1, cwd=tmp_path), 2, "seed must be 0 or more")
    assert_error(mrm("evaluate", embedded_bundle.path, embedded, "--shots", "a,b"), 2, "whole numbers with commas")
    assert_error(mrm("import", embedded, "--database", "mysql://h/d"), 2, "not supported")
    assert_error(mrm("import", embedded, "--database", "nonsense"), 2, "does not parse")
    assert mrm("import", embedded).code == 2


@pytest.mark.slow
def test_bad_bundles(embedded: Path, embedded_bundle: Bundle, tmp_path: Path) -> None:
    assert_error(mrm("evaluate", tmp_path / "none", embedded), 2, "no bundle at")
    assert_error(mrm("evaluate", embedded, embedded), 1, "is not a bundle")
    damaged = Path(shutil.copytree(embedded_bundle.path, tmp_path / "damaged"))
    with (damaged / "base_rewards.onnx").open("ab") as file:
        file.write(b"x")
    assert_error(mrm("evaluate", damaged, embedded), 1, "not the file that was shipped")
    wide = write_embedded_dataset(tmp_path / "wide", dimension=7)
    assert_error(mrm("evaluate", embedded_bundle.path, wide), 1, "7 numbers")


@pytest.mark.slow
def test_bad_databases(embedded: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'newer.db'}"
    mrm("db", "upgrade", "--database", url)
    with sqlite3.connect(tmp_path / "newer.db") as connection:
        connection.execute("UPDATE mrm_alembic_version SET version_num = '9999'")
    connection.close()
    for command in (("db", "upgrade"), ("db", "check"), ("import", embedded)):
        assert_error(mrm(*command, "--database", url), 1, "belong to a newer one")
    assert_error(mrm("db", "upgrade", "--database", "postgresql://u:secret@127.0.0.1:1/x"), 1, "unavailable")
    assert "secret" not in mrm("db", "upgrade", "--database", "postgresql://u:secret@127.0.0.1:1/x").err
    assert_error(mrm("db", "upgrade", "--database", f"sqlite:///{tmp_path}/no/a.db"), 1, "check that the folder exists")
    (tmp_path / "text.db").write_text("this is no database, but a text that is long enough to be read as one")
    assert_error(mrm("db", "current", "--database", f"sqlite:///{tmp_path}/text.db"), 1, "holds something else")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc refuses new files even to root")
def test_read_only_paths(embedded: Path, embedded_bundle: Bundle) -> None:
    assert_error(mrm("train", embedded, "--out", "/proc/mrm/b"), 2, "Cannot write to /proc/mrm")
    assert_error(mrm("demo", "--out", "/proc/mrm"), 2, "Cannot write to /proc/mrm")
    run = mrm("evaluate", embedded_bundle.path, embedded, "--shots", "0", "--json", "/proc/mrm.json")
    assert_error(run, 2, "/proc/mrm.json cannot become a file (")
    assert run.out == ""  # it is told before what takes long
    run = mrm("db", "upgrade", "--database", "sqlite:////proc/mrm.db")
    assert_error(run, 1, "unavailable")


@pytest.mark.slow
def test_no_onnx_runtime(embedded: Path, embedded_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('not here')")
    run = mrm("evaluate", embedded_bundle.path, embedded, PYTHONPATH=str(tmp_path))
    assert_error(run, 2, "pip install 'mrm-sdk[cpu]'")


@pytest.mark.slow
def test_demo_leaves_strange_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear diary")
    assert_error(mrm("demo", "--out", tmp_path), 2, "'letters.txt', which is not the demo's")
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
@pytest.mark.parametrize(
    "call", [("users", "--database", "URL"), ("--version",), ("--help",)], ids=lambda call: call[0]
)
def test_a_full_disk_behind_stdout(
    call: tuple[str, ...], sqlite_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with recorder(sqlite_url, "default", None) as record:
        record([Comparison(user_id="ada", chosen="a", rejected="b")])
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "argv", ["mrm", *(sqlite_url if word == "URL" else word for word in call)])
        with pytest.raises(SystemExit) as end:
            main()
    assert (end.value.code, capsys.readouterr().err) == (
        1,
        "error: Cannot write: No space left on device.\n",
    )


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("call", ["--version", "--help", "doctor"])
def test_stdout_of_a_process_that_is_full_or_closed(call: str) -> None:
    def run(redirection: str) -> tuple[int, str]:
        command = f"{shlex.join([*MRM, call])} {redirection}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, encoding="utf-8", check=False)
        assert not done.stdout
        return done.returncode, done.stderr

    assert run(">/dev/full") == (1, "error: Cannot write: No space left on device.\n")
    assert run("| head -0")[1] == ""
    assert run("| head -0; exit ${PIPESTATUS[0]}") in ((0, ""), (1, ""))
    assert run(">&-")[1] == ""
