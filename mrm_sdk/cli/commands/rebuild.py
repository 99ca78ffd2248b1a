"""``mrm rebuild``: stored feedback gets the features of another bundle, while the old one serves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrm_sdk.cli.options import DatabaseOption, JsonOption
from mrm_sdk.cli.output import printable, require_file, say, show
from mrm_sdk.cli.progress import progress
from mrm_sdk.cli.stored import require_tables
from mrm_sdk.errors import MrmError, NotFoundError

if TYPE_CHECKING:
    from mrm_sdk.schemas.results import Rebuilt

_SHOWN = 10


def rebuild(
    database: DatabaseOption,
    bundle: Annotated[Path, typer.Option(help="The bundle to switch to.", show_default=False)],
    tenant: Annotated[str, typer.Option(help="Whose feedback.")] = "default",
    json_file: JsonOption = None,
) -> None:
    """Gives stored feedback the features of another bundle and adapts all users; resumes if it was interrupted."""
    require_file(json_file)
    try:
        rebuilt = _rebuild(database, bundle, tenant)
    except MrmError as error:
        for line in _lines_of(error.refused):
            say(line)
        raise
    lines = [f"encoded   {rebuilt.items}", f"compared  {rebuilt.comparisons}", f"adapted   {rebuilt.users}"]
    lines += _lines_of(rebuilt.refused)
    show("\n".join(lines), rebuilt.model_dump(mode="json"), json_file)
    if rebuilt.refused:
        raise typer.Exit(1)


def _lines_of(refused: Sequence[tuple[str, str, str]]) -> list[str]:
    if not refused:
        return []
    shown = [printable(f"  event {event} of user {user}: {reason}") for event, user, reason in refused[:_SHOWN]]
    return [f"refused   {len(refused)}", *shown]


def _rebuild(url: str, bundle: Path, tenant: str) -> Rebuilt:
    from mrm_sdk.client import Client

    shown_url = require_tables(url)
    with progress() as report, Client(url, bundle=bundle, tenant=tenant) as client:
        rebuilt = client.rebuild(progress=report)
    if not rebuilt.users:
        raise NotFoundError(f"There is no feedback of the tenant {tenant!r} in {shown_url}; check --tenant.")
    return rebuilt
