"""Ids as files and tables have them -> text; what cannot name anyone is refused, never merged into one unknown user."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any
from uuid import UUID

from mrm_sdk.errors import InvalidInputError

_WHOLE = re.compile(r"(-?\d+)\.0+")


def id_text(field: str, value: Any) -> str:
    """An id as text: a text that is not blank, a whole number, or a UUID.

    Raises:
        InvalidInputError: it is anything else, as NaN, a boolean, a list or bytes are.
    """
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))  # tables with gaps keep whole numbers as floats
    if isinstance(value, UUID) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    kind = "blank" if isinstance(value, str) else f"{value}" if isinstance(value, float) else type(value).__name__
    raise InvalidInputError(f"{field} must be a text that is not blank or a whole number, not {kind}")


def user_id_text(value: Any) -> str:
    """A user's id as text; ``"3.0"`` is 3, for so pandas writes it to CSV where another user's id is missing.

    Raises:
        InvalidInputError: see :func:`id_text`.
    """
    text = id_text("user_id", value)
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text
