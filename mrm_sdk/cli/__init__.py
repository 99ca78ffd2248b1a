"""The command ``mrm``: results on stdout, progress on stderr and only on a terminal.

Exit code 0: success; 1: the work failed; 2: the call was wrong; 130: interrupted.
"""

from __future__ import annotations

import sys

from mrm_sdk.cli.output import say
from mrm_sdk.errors import MrmError

INTERRUPTED = "interrupted; what was stored before stays, anything else was left as it was"


def main() -> None:
    """Runs ``mrm`` and turns errors of this package into one line and an exit code."""
    try:
        from mrm_sdk.cli.commands.app import app  # takes a moment, in which it may be interrupted

        app()
    except MrmError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        say(INTERRUPTED)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as in `mrm … | head`
        sys.stderr.close()
        sys.exit(1)
