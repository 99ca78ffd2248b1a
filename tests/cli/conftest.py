"""Commands in this process: as quick as a call, for what needs no process of its own."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import TypeAlias

import pytest

from mrm_sdk.cli.main import main
from tests.conftest import Run

Command: TypeAlias = Callable[..., Run]


class Terminal(io.TextIOWrapper):
    """A terminal on which this was typed; typing ``^C`` interrupts."""

    def isatty(self) -> bool:
        return True

    def readline(self, size: int | None = -1, /) -> str:
        line = super().readline()
        if line == "^C":
            raise KeyboardInterrupt
        return line


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs ``mrm`` with arguments, and with what is piped in (``None``: stdin is closed) or ``typed`` on a terminal."""

    def run(*arguments: object, piped: bytes | None = b"", typed: str | None = None) -> Run:
        stdin = None if piped is None else io.TextIOWrapper(io.BytesIO(piped))
        if typed is not None:
            stdin = Terminal(io.BytesIO(typed.encode()))
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "argv", ["mrm", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code
        assert isinstance(code, int)
        return Run(code, *capsys.readouterr())

    return run
