"""``mrm db``: the tables of a database, and their migrations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from mrm_sdk.cli.options import DatabaseOption
from mrm_sdk.cli.output import echo
from mrm_sdk.cli.parser import Command, Commands
from mrm_sdk.errors import NotFoundError

if TYPE_CHECKING:
    from mrm_sdk.storage import Database as OpenedDatabase

app = typer.Typer(
    cls=Commands, help="The database's tables: bring them up to date, or see where they stand.", no_args_is_help=True
)


@app.command(cls=Command)
def upgrade(database: DatabaseOption) -> None:
    """Brings the tables up to date."""
    from mrm_sdk.storage import upgrade as run

    before, after = run(_opened(database))
    echo(f"{before or 'no tables'} -> {after}" if before != after else f"up to date at {after}")


@app.command(cls=Command)
def current(database: DatabaseOption) -> None:
    """Prints the revision of the tables."""
    from mrm_sdk.storage import current as run

    echo(run(_existing(database)) or "no tables")


@app.command(cls=Command)
def check(database: DatabaseOption) -> None:
    """Compares the tables with what this version expects; exit code 1 if they differ."""
    from mrm_sdk.storage import check as run

    differences = run(_existing(database))
    echo("\n".join(differences) if differences else "the tables are as they should be")
    if differences:
        raise typer.Exit(1)


def _opened(url: str, *, read_only: bool = False) -> OpenedDatabase:
    from mrm_sdk.settings import Settings
    from mrm_sdk.storage import Database as OpenedDatabase

    return OpenedDatabase(url, Settings(), read_only=read_only)


def _existing(url: str) -> OpenedDatabase:
    """The database, which is only read."""
    database = _opened(url, read_only=True)
    if database.is_new:
        raise NotFoundError(
            f"{database.url} does not exist; check the path, or create it: mrm db upgrade --database '{database.url}'"
        )
    return database
