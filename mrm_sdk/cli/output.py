"""Where a command writes: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

INTERRUPTED: Final = "interrupted; what was stored before stays, anything else was left as it was"


def echo(text: str) -> None:
    """Prints a result."""
    print(text, file=sys.stdout, flush=True)  # noqa: T201  the one place where results leave


def echo_json(value: Any) -> None:
    """Prints a result for programs."""
    echo(json.dumps(value, indent=2))


def say(text: object) -> None:
    """Prints what is not a result: errors and notes."""
    print(text, file=sys.stderr)  # noqa: T201  and the one place for the rest
