"""Entry point of ``mrm``: runs a command and turns errors into one line and an exit code."""

from __future__ import annotations

import io
import sys

from mrm_sdk.cli.output import INTERRUPTED, say
from mrm_sdk.errors import MrmError


def main() -> None:
    """Runs ``mrm``; an error of this package becomes one line on stderr and its exit code."""
    # A terminal or a pipe without Unicode gets "?" for a sign that it lacks; results are not lost for it.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        from mrm_sdk.cli.commands import app  # imported here: Ctrl-C may come while it loads

        app()
    except MrmError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of stdout has gone, as in `mrm … | head`
        sys.stderr.close()
        sys.exit(1)
    except (Exception, KeyboardInterrupt) as error:
        # During imports Ctrl-C may become another error: Python itself makes one of it while a class is built.
        if not _is_interruption(error):
            raise
        say(INTERRUPTED)
        sys.exit(130)


def _is_interruption(error: BaseException | None) -> bool:
    """Whether this is Ctrl-C, or an error that it caused."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
