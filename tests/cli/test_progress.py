"""What a person at a terminal sees of a long training, and what Ctrl-C does to it."""

from __future__ import annotations

import fcntl
import io
import os
import re
import select
import struct
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from mrm_sdk.bundle import Bundle
from mrm_sdk.cli.output import INTERRUPTED
from mrm_sdk.cli.progress import progress, rate
from tests.conftest import MRM, Run, mrm, write_embedded_dataset

pytestmark = pytest.mark.slow

COLUMNS = 80
CTRL_C = b"\x03"


def on_terminal(*arguments: object, interrupt_at: str | None = None, once: Callable[[], bool] = lambda: True) -> Run:
    """Runs the command on a terminal of its own; Ctrl-C is pressed there after a text, once a condition holds."""
    keyboard, screen = os.openpty()
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    name = os.ttyname(screen)
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    # Opened by the leader of a session, the terminal is the one whose Ctrl-C reaches the session.
    child = subprocess.Popen(
        ["sh", "-c", f'exec "$@" <{name} >{name} 2>&1', "sh", *MRM, *map(str, arguments)],
        env={**environment, "TERM": "xterm"},
        start_new_session=True,
    )
    shown = b""
    try:
        while ready(keyboard) or child.poll() is None:
            shown += os.read(keyboard, 65536) if ready(keyboard) else b""
            if interrupt_at is not None and interrupt_at.encode() in shown and once():
                os.write(keyboard, CTRL_C)
                interrupt_at = None
        return Run(child.wait(timeout=60), shown.decode(), "")
    finally:
        child.kill()
        child.wait()
        os.close(keyboard)
        os.close(screen)


def ready(keyboard: int) -> bool:
    return bool(select.select([keyboard], [], [], 0.05)[0])


def lines(run: Run) -> list[str]:
    """What stood on the terminal's lines, one after the other."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", run.out)
    return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough users to interrupt a training on them."""
    return write_embedded_dataset(tmp_path_factory.mktemp("data") / "data", users=200, pairs=3)


def test_bars_show_rates_and_remaining_time_within_80_columns(embedded: Path, tmp_path: Path) -> None:
    run = on_terminal("train", embedded, "--out", tmp_path / "b", "--preset", "paper")
    assert run.code == 0, run.out
    seen = lines(run)
    assert any(re.fullmatch(r"meta-training +[━╸╺]+ +\d+/300 +[\d.,]+/s +\d:\d\d:\d\d", line) for line in seen), seen
    bars = [line for line in seen if "━" in line]
    assert max(map(len, bars)) <= COLUMNS
    assert {line.split("  ")[0] for line in bars} >= {"reading", "meta-training"}
    assert not any("━" in line for line in seen[-4:]), "bars are gone once the work is done"


def test_the_longest_names_leave_room_for_a_bar(embedded: Path, tmp_path: Path) -> None:
    run = on_terminal("train", embedded, "--out", tmp_path / "b")
    assert run.code == 0, run.out
    bars = [line for line in lines(run) if "━" in line]
    assert any(line.startswith("directions of the embeddings ━") for line in bars)
    assert max(map(len, bars)) <= COLUMNS


def test_a_stage_that_runs_again_is_not_done_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    with progress() as report:
        for fold in (12, 1):
            for done in range(1, fold + 1):
                report("meta-training", done, 12)
    last = [line for line in lines(Run(0, terminal.getvalue(), "")) if "━" in line][-1]
    assert re.search(r" 1/12 +-:--:--$", last)


def test_ctrl_c_with_a_checkpoint_says_how_to_go_on_and_going_on_ends_the_same(data: Path, tmp_path: Path) -> None:
    command = ("train", data, "--preset", "paper", "--checkpoint", tmp_path / "kept", "--out", tmp_path / "b")
    stopped = on_terminal(
        *command, interrupt_at="meta-training", once=lambda: any((tmp_path / "kept").glob("*.safetensors"))
    )
    assert stopped.code == 130, stopped.out
    assert " ".join(lines(stopped)).endswith(f"interrupted; the same command resumes from {tmp_path / 'kept'}")
    assert "Traceback" not in stopped.out
    assert not (tmp_path / "b").exists()
    again = mrm(*command)
    assert (again.code, again.err) == (0, "")
    whole = mrm("train", data, "--preset", "paper", "--out", tmp_path / "whole")
    assert whole.code == 0
    assert Bundle(tmp_path / "b").fingerprint == Bundle(tmp_path / "whole").fingerprint


def test_ctrl_c_without_a_checkpoint_promises_nothing(data: Path, tmp_path: Path) -> None:
    stopped = on_terminal("train", data, "--preset", "paper", "--out", tmp_path / "b", interrupt_at="meta-training")
    assert stopped.code == 130, stopped.out
    assert lines(stopped)[-1] == INTERRUPTED
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("speed", "shown"),
    [(None, ""), (0.0, ""), (0.26, "0.3/s"), (9.94, "9.9/s"), (12.6, "13/s"), (123456.7, "123,457/s")],
)
def test_rate(speed: float | None, shown: str) -> None:
    assert rate(speed) == shown
