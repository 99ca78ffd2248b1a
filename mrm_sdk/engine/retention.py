"""How long feedback is kept: the moment before which it goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from mrm_sdk.errors import InvalidInputError


def moment_of(older_than: timedelta | datetime) -> datetime:
    """The moment, in UTC, before which feedback goes: ``older_than`` itself, or that age back from now.

    Raises:
        InvalidInputError: it is of another type, without a time zone, in the future, or outside of the calendar.
    """
    now = datetime.now(UTC)
    try:
        moment = now - older_than if isinstance(older_than, timedelta) else older_than
        if not isinstance(moment, datetime) or moment.utcoffset() is None:
            raise InvalidInputError("older_than must be a timedelta, or a datetime with a time zone.")
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise InvalidInputError("older_than lies outside of the calendar.") from None
    if moment > now:
        raise InvalidInputError("older_than lies in the future: all feedback would go, and new feedback be refused.")
    return moment
