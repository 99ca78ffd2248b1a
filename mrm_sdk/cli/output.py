"""Where a command writes: results on stdout and, as JSON, into a file; everything else on stderr."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from mrm_sdk.errors import OutputError

INTERRUPTED: Final = "interrupted; what was stored before stays, anything else was left as it was"
STDOUT: Final = Path("-")


def echo(text: str) -> None:
    """Prints a result."""
    print(text, file=sys.stdout, flush=True)  # noqa: T201  the one place where results leave


def say(text: object) -> None:
    """Prints what is not a result: errors and notes."""
    print(text, file=sys.stderr)  # noqa: T201  and the one place for the rest


def show(text: str, value: Any, json_file: Path | None) -> None:
    """Prints a result, and writes it as JSON where the option ``--json`` says.

    Args:
        text: for people; left out if JSON goes to stdout.
        value: the same for programs.
        json_file: where JSON goes; ``-`` is stdout.

    Raises:
        OutputError: the file cannot be written; ``text`` was printed before.
    """
    if json_file != STDOUT:
        echo(text)
    if json_file is not None:
        written = json.dumps(value, indent=2)
        if json_file == STDOUT:
            echo(written)
        else:
            from mrm_sdk.evaluation.reports.page import write_text

            write_text(json_file, written + "\n")


def require_file(path: Path | None) -> None:
    """Checks, before work that takes long, that its result can be written to ``path``.

    Raises:
        OutputError: a folder is there, or its own folder is a file.
    """
    if path is None or path == STDOUT:
        return
    if path.is_dir() or (path.parent.exists() and not path.parent.is_dir()):
        raise OutputError(f"{path} cannot become a file; choose another place.")
