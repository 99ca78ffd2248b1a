"""``mrm check``: all that is wrong with a data set, how much is in it, and whether that is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from mrm_sdk.cli.options import ColumnOption, DatasetArgument, FormatOption, JsonOption, named_columns
from mrm_sdk.cli.output import require_file, show
from mrm_sdk.cli.progress import progress

if TYPE_CHECKING:
    from mrm_sdk.data.checking import Amounts


def check(
    dataset: DatasetArgument,
    column: ColumnOption = None,
    data_format: FormatOption = "auto",
    json_file: JsonOption = None,
) -> None:
    """Lists all that is wrong with a data set, says how much is in it, and whether it is enough to train on."""
    require_file(json_file)
    columns = named_columns(column)
    from mrm_sdk.data.checking import check_dataset

    with progress() as report:
        report("reading", 0, 1)
        found = check_dataset(dataset, format=data_format, columns=columns)
        report("reading", 1, 1)
    lines = [f"problems     {len(found.problems)}", *(f"  {problem}" for problem in found.problems)]
    if found.reading is not None:
        lines.append(f"records      {found.reading}")
    if found.amounts is not None:
        lines += _lines_of(found.amounts)
    show("\n".join(lines), found.as_json(), json_file)
    if found.problems:
        raise typer.Exit(1)


def _lines_of(amounts: Amounts) -> list[str]:
    from mrm_sdk.data.checking import ENOUGH_SHOTS, ENOUGH_USERS

    lines = [
        f"users        {amounts.users}",
        f"texts        {amounts.texts}",
        f"comparisons  {amounts.comparisons}",
        f"ratings      {amounts.ratings}\n",
        f"{'per user':14}" + "".join(f"{name:>8}" for name in amounts.comparisons_per_user),
    ]
    for name, quantiles in (("comparisons", amounts.comparisons_per_user), ("ratings", amounts.ratings_per_user)):
        if any(quantiles.values()):
            lines.append(f"{name:14}" + "".join(f"{count:8}" for count in quantiles.values()))
    return [
        *lines,
        f"\n{'shots':14}" + "".join(f"{shots:8}" for shots in amounts.users_by_shots),
        f"{'users':14}" + "".join(f"{users:8}" for users in amounts.users_by_shots.values()),
        "              have so many comparisons to adapt to, and as many others to be\n              judged on\n",
        f"enough       {'yes' if amounts.enough else 'no'}: {amounts.users_by_shots[ENOUGH_SHOTS]} users with "
        f"{ENOUGH_SHOTS} shots",
        f"              (in the Jester data set, adapting gained from {ENOUGH_USERS} on)",
    ]
