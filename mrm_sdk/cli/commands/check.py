"""``mrm check``: all that is wrong with a data set, how much is in it, and whether that is enough."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrm_sdk.cli.options import ColumnOption, DatasetArgument, FormatOption, named_columns
from mrm_sdk.cli.output import echo, write_json
from mrm_sdk.cli.progress import progress

if TYPE_CHECKING:
    from mrm_sdk.data.checking import Amounts


def check(
    dataset: DatasetArgument,
    column: ColumnOption = None,
    data_format: FormatOption = "auto",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write all of it here, as JSON; - is stdout, in place of text.")
    ] = None,
) -> None:
    """Lists all that is wrong with a data set, says how much is in it, and whether it is enough to train on."""
    columns = named_columns(column)
    from mrm_sdk.data.checking import check_dataset

    with progress() as report:
        report("reading", 0, 1)
        found = check_dataset(dataset, format=data_format, columns=columns)
        report("reading", 1, 1)
    if json_file != Path("-"):
        echo(f"problems     {len(found.problems)}")
        for problem in found.problems:
            echo(f"  {problem}")
        if found.reading is not None:
            echo(f"records      {found.reading}")
        if found.amounts is not None:
            _print_amounts(found.amounts)
    if json_file is not None:
        write_json(json_file, found.as_json())
    if found.problems:
        raise typer.Exit(1)


def _print_amounts(amounts: Amounts) -> None:
    from mrm_sdk.data.checking import ENOUGH_SHOTS, ENOUGH_USERS

    echo(f"users        {amounts.users}")
    echo(f"texts        {amounts.texts}")
    echo(f"comparisons  {amounts.comparisons}")
    echo(f"ratings      {amounts.ratings}\n")
    echo(f"{'per user':14}" + "".join(f"{name:>8}" for name in amounts.comparisons_per_user))
    for name, quantiles in (("comparisons", amounts.comparisons_per_user), ("ratings", amounts.ratings_per_user)):
        if any(quantiles.values()):
            echo(f"{name:14}" + "".join(f"{count:8}" for count in quantiles.values()))
    echo(f"\n{'shots':14}" + "".join(f"{shots:8}" for shots in amounts.users_by_shots))
    echo(f"{'users':14}" + "".join(f"{users:8}" for users in amounts.users_by_shots.values()))
    echo("              have so many comparisons to adapt to, and as many others to be judged on\n")
    echo(
        f"enough       {'yes' if amounts.enough else 'no'}: {amounts.users_by_shots[ENOUGH_SHOTS]} users with "
        f"{ENOUGH_SHOTS} shots; training pays from about {ENOUGH_USERS} on"
    )
