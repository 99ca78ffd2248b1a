"""Where a command writes: results on stdout and, as JSON, into a file; everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from mrm_sdk.errors import OutputError

INTERRUPTED: Final = "interrupted; what was stored before stays, anything else was left as it was"
STDOUT: Final = Path("-")


def echo(text: str) -> None:
    """Prints a result."""
    print(text, file=sys.stdout, flush=True)  # noqa: T201  the one place where results leave


def drop_stdout() -> None:
    """Lets go of what stdout did not take, or Python would try to write it at its end, and complain."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: object) -> None:
    """Prints what is not a result: errors and notes."""
    print(text, file=sys.stderr)  # noqa: T201  and the one place for the rest


def confirmed(question: str) -> bool:
    """Asks on the terminal; anything but ``y`` or ``yes`` is a no."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201  not a result either
    answer = ""
    try:
        answer = sys.stdin.readline()
    finally:
        if not answer.endswith("\n"):  # Ctrl-C or Ctrl-D: what is said next begins a line
            say("")
    return answer.strip().lower() in ("y", "yes")


def printable(text: str) -> str:
    """A text on one line, without what would move a terminal's cursor or colour it."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def shortened(text: str, width: int) -> str:
    """The beginning of a text on one line of at most so many columns; wide letters take two."""
    from rich.cells import cell_len, set_cell_size

    line = printable(" ".join(text[: 4 * width].split()))
    is_whole = len(text) <= 4 * width and cell_len(line) <= width
    return line if is_whole else f"{set_cell_size(line, min(width - 1, cell_len(line))).rstrip()}…"


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
    show_json(value, json_file)


def show_json(value: Any, json_file: Path | None) -> None:
    """The second half of :func:`show`, for a command that has printed its text."""
    if json_file is None:
        return
    written = json.dumps(value, indent=2)
    if json_file == STDOUT:
        echo(written)
    else:
        from mrm_sdk.evaluation.reports.page import write_text

        write_text(json_file, written + "\n")


def require_file(path: Path | None) -> None:
    """Makes sure, before work that takes long or deletes, that its result can be written to ``path``.

    A file that is there stays as it is, and none is left behind.

    Raises:
        OutputError: nothing can be written there.
    """
    if path is None or path == STDOUT:
        return
    made: Path | None = None
    try:
        is_there, missing = path.exists(), [folder for folder in path.parents if not folder.exists()]
        if is_there and not path.is_file() and not path.is_dir():  # a pipe or a device: opening it may wait, or end it
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                if not is_there:
                    made = Path(os.path.realpath(path))
                    file.write(b"\n")  # on a full disk only this fails
        finally:
            if made is not None:
                made.unlink(missing_ok=True)
            for folder in missing:
                with suppress(OSError):
                    folder.rmdir()
    except OSError as error:
        raise OutputError(f"{path} cannot become a file ({error.strerror}); choose another place.") from None
