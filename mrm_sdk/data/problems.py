"""What becomes of a row that is wrong: it stops the reading, or it is reported and left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import TypeAlias

from mrm_sdk.errors import DatasetError

# Called with what is wrong with a row; if it returns, the row is left out and the reading goes on.
OnBadRow: TypeAlias = Callable[[DatasetError], None]
_LISTED = 20


def stop(problem: DatasetError) -> None:
    """The default: the first row that is wrong ends the reading.

    Raises:
        DatasetError: always.
    """
    raise problem from None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence for a message: the name that is most like ``name``, or what names there are."""
    by_lower = {other.lower(): other for other in known}
    close = get_close_matches(name.lower(), by_lower, 1)
    if close:
        return f"Did you mean {by_lower[close[0]][:40]!r}?"
    return f"There are: {listed(by_lower.values())}."


def listed(names: Iterable[object]) -> str:
    """Names of columns in a message: the first few, none too long."""
    shown = [str(name)[:40] for name in names]
    return ", ".join(shown[:_LISTED]) + (f" and {len(shown) - _LISTED} more" if len(shown) > _LISTED else "")
