"""``mrm users``, ``summary``, ``export``, ``forget`` and ``prune``: what is kept of users; none of them loads torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from mrm_sdk.cli.options import (
    DatabaseOption,
    JsonOption,
    OnlyJsonOption,
    TenantOption,
    UserArgument,
    age,
    called_right,
    require_id,
)
from mrm_sdk.cli.output import STDOUT, confirmed, echo, printable, require_file, say, show, show_json
from mrm_sdk.cli.stored import require_tables
from mrm_sdk.errors import ConfigurationError, NotFoundError

if TYPE_CHECKING:
    from mrm_sdk.schemas.results import UserSummary
    from mrm_sdk.user_data import UserData

YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
_PAGE = 1_000


def users(
    database: DatabaseOption,
    tenant: TenantOption = "default",
    after: Annotated[str, typer.Option(help="Only ids behind this one.", show_default=False)] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many; all by default.")] = None,
    json_file: JsonOption = None,
) -> None:
    """Lists the ids of users with feedback, one per line, in the database's order of texts."""
    require_file(json_file)
    listed: list[str] = []
    found = 0
    with _opened(database, tenant) as data:
        for page in _pages(data, after, limit):
            found += len(page)
            if json_file != STDOUT:
                echo("\n".join(map(printable, page)))
            if json_file is not None:
                listed += page
    if not found:
        say(f"no user of the tenant {tenant!r} has given feedback" if not after else f"no user comes after {after!r}")
    show_json({"users": listed}, json_file)


def summary(
    user: UserArgument, database: DatabaseOption, tenant: TenantOption = "default", json_file: JsonOption = None
) -> None:
    """Tells what is known of a user, without any text: counts, times, and how far the weights have come."""
    require_file(json_file)
    require_id("user_id", user)
    with _opened(database, tenant) as data:
        known = data.summary(user)
    if not _has_events(known) and known.forgotten_at is None:
        say(_nothing(tenant))
    lines = [
        f"user         {printable(user)}",
        f"comparisons  {known.comparisons}" + (f", {known.ties} of them ties" if known.ties else ""),
        f"ratings      {known.ratings}",
        f"first        {_moment(known.first_at)}",
        f"newest       {_moment(known.newest_at)}",
        f"forgotten    {_moment(known.forgotten_at, 'never')}",
    ]
    for number, (fingerprint, weights) in enumerate(sorted(known.weights.items())):
        lines.append(
            f"{'' if number else 'weights':13}{fingerprint[:12]}…  {_counted(weights.judgements, 'judgement')}, "
            f"revision {weights.revision}, {'current' if weights.current else 'outdated'}"
        )
        if (moved := weights.counted) is not None:
            kinds = [
                _counted(moved.comparisons, "comparison"),
                _counted(moved.rating_pairs, "pair", " of ratings"),
                _counted(moved.ratings_alone, "single rating"),
            ]
            lines.append(f"{'':13}moved by {', '.join(kinds)}")
    show("\n".join(lines), known.model_dump(mode="json"), json_file)


def export(
    user: UserArgument, database: DatabaseOption, tenant: TenantOption = "default", json_file: OnlyJsonOption = None
) -> None:
    """Prints all data of a user as JSON; with --json FILE it goes there, and how many rows it is to the terminal."""
    require_file(json_file)
    with _opened(database, tenant) as data:
        told = data.export_user(user)
    if not any(told["counts"].values()):
        raise _nothing(tenant)
    show("\n".join(_rows(told["counts"])), told, json_file or STDOUT)


def forget(
    user: UserArgument,
    database: DatabaseOption,
    tenant: TenantOption = "default",
    yes: YesOption = False,
    json_file: JsonOption = None,
) -> None:
    """Deletes all data of a user for good; older events that arrive again stay out."""
    require_file(json_file)
    _require_answer(yes)
    with _opened(database, tenant) as data:
        known = data.summary(user)
        if not _has_events(known):
            if known.forgotten_at is None:
                raise _nothing(tenant)
            say(f"nothing is stored of {user!r} any more: forgotten at {_moment(known.forgotten_at)}")
        elif not yes:
            events = f"{_counted(known.comparisons, 'comparison')} and {_counted(known.ratings, 'rating')}"
            _ask(f"Delete {events} of {user!r} for good?")
        forgotten = data.forget(user)
    show("\n".join(_rows(forgotten.rows)), forgotten.model_dump(mode="json"), json_file)


def prune(
    older_than: Annotated[str, typer.Option(help="An age, as 90d, 12h or 2w.", show_default=False)],
    database: DatabaseOption,
    tenant: TenantOption = "default",
    yes: YesOption = False,
    json_file: JsonOption = None,
) -> None:
    """Deletes all users' events of a greater age for good; older events that arrive later are refused."""
    require_file(json_file)
    # In settings these are seconds; here days may be meant, and nothing comes back.
    if older_than.strip().replace(".", "", 1).isdecimal():
        raise ConfigurationError(f"--older-than needs a unit, as in {older_than.strip()}d for days.")
    length = age(older_than, "--older-than")
    if not length:
        raise ConfigurationError(
            "--older-than 0 would delete everything that any user has said. Give a greater age, as 1h; mrm forget "
            "deletes what one user has said."
        )
    _require_answer(yes)
    from mrm_sdk.engine.retention import moment_of

    with called_right():
        moment = moment_of(length, "--older-than")
    with _opened(database, tenant) as data:
        if not yes:
            _ask(f"Delete what all users of the tenant {tenant!r} said before {_moment(moment)} for good?")
        pruned = data.prune(older_than=moment)
    lines = [f"{'before':26}{_moment(pruned.before)}", *_rows(pruned.rows)]
    show("\n".join(lines), pruned.model_dump(mode="json"), json_file)


@contextmanager
def _opened(url: str, tenant: str) -> Iterator[UserData]:
    from mrm_sdk.user_data import UserData

    require_tables(url)
    with called_right(), UserData(url, tenant=tenant) as data:
        yield data


def _pages(data: UserData, after: str, limit: int | None) -> Iterator[list[str]]:
    while page := data.users(after=after, limit=_PAGE if limit is None else min(_PAGE, limit)):
        yield page
        after = page[-1]
        if limit is not None:
            limit -= len(page)
            if not limit:
                return


def _has_events(known: UserSummary) -> bool:
    return bool(known.comparisons or known.ratings)


def _nothing(tenant: str) -> NotFoundError:
    return NotFoundError(f"Nothing is stored of this user in the tenant {tenant!r}; check the id, and --tenant.")


def _require_answer(yes: bool) -> None:
    """Makes sure, before any work, that the question whether to delete can be answered."""
    if not yes and not (sys.stdin and sys.stdin.isatty()):  # none where the shell closed it: <&-
        raise ConfigurationError("This deletes data for good, and there is no terminal to ask on: add --yes.")


def _ask(question: str) -> None:
    if not confirmed(question):
        say("nothing was deleted")
        raise typer.Exit(1)


def _rows(rows: Mapping[str, int]) -> list[str]:
    return [f"{table:26}{count}" for table, count in rows.items()]


def _counted(number: int, what: str, more: str = "") -> str:
    return f"{number} {what}{more}" if number == 1 else f"{number} {what}s{more}"


def _moment(moment: datetime | None, never: str = "–") -> str:
    return never if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
