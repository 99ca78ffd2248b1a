"""Where a command writes: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from mrm_sdk.errors import OutputError

INTERRUPTED: Final = "interrupted; what was stored before stays, anything else was left as it was"


def echo(text: str) -> None:
    """Prints a result."""
    print(text, file=sys.stdout, flush=True)  # noqa: T201  the one place where results leave


def write_json(path: Path, value: Any) -> None:
    """Writes a result for programs to a file, or prints it where the path is ``-``.

    Raises:
        OutputError: the file cannot be written.
    """
    if path == Path("-"):
        echo_json(value)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror}. Choose another place.") from None


def echo_json(value: Any) -> None:
    """Prints a result for programs."""
    echo(json.dumps(value, indent=2))


def say(text: object) -> None:
    """Prints what is not a result: errors and notes."""
    print(text, file=sys.stderr)  # noqa: T201  and the one place for the rest
