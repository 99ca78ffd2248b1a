"""How long feedback is kept: the moment before which it goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from mrm_sdk.errors import InvalidInputError


def moment_of(older_than: timedelta | datetime, name: str = "older_than") -> datetime:
    """The moment, in UTC, before which feedback goes: ``older_than`` itself, or that age back from now.

    Args:
        older_than: an age, or a moment with a time zone.
        name: what the caller knows it as, for messages.

    Raises:
        InvalidInputError: it is of another type, without a time zone, in the future, or outside of the calendar.
    """
    now = datetime.now(UTC)
    try:
        moment = now - older_than if isinstance(older_than, timedelta) else older_than
        if not isinstance(moment, datetime) or moment.utcoffset() is None:
            raise InvalidInputError(f"{name} must be a timedelta, or a datetime with a time zone.")
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise InvalidInputError(f"{name} lies before the calendar's first year; give a later time.") from None
    if moment > now:
        raise InvalidInputError(f"{name} lies in the future: all feedback would go, and new feedback be refused.")
    return moment
