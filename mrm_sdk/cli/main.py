"""Entry point of ``mrm``: runs a command and turns errors into one line and an exit code."""

from __future__ import annotations

import errno
import io
import sys

from mrm_sdk.cli.output import INTERRUPTED, drop_stdout, say
from mrm_sdk.errors import MrmError

# What a write ends with where there is no room: to stdout, for files are written by code that knows their names.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def main() -> None:
    """Runs ``mrm``; an error of this package becomes one line on stderr and its exit code."""
    # A terminal or a pipe without Unicode gets "?" for a sign that it lacks; results are not lost for it.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        from mrm_sdk.cli.commands import app  # imported here: Ctrl-C may come while it loads

        try:
            app()
        finally:
            if sys.stdout is not None:  # as where the shell closed it: >&-
                sys.stdout.flush()
    except MrmError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of stdout has gone, as in `mrm … | head`
        sys.stderr.close()
        sys.exit(1)
    except (Exception, KeyboardInterrupt) as error:
        # During imports Ctrl-C may become another error: Python itself makes one of it while a class is built.
        if _is_interruption(error):
            say(INTERRUPTED)
            sys.exit(130)
        if not isinstance(error, OSError) or error.errno not in _FULL:
            raise
        drop_stdout()
        say(f"error: Cannot write: {error.strerror}.")
        sys.exit(1)


def _is_interruption(error: BaseException | None) -> bool:
    """Whether this is Ctrl-C, or an error that it caused."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
