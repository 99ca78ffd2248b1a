"""Options and arguments that several commands share, and how their text becomes values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from mrm_sdk.errors import ConfigurationError, InvalidInputError

DatabaseOption = Annotated[
    str, typer.Option("--database", envvar="MRM_DATABASE", help="URL, as sqlite:///mrm.db", show_default=False)
]
UserArgument = Annotated[
    str, typer.Argument(metavar="USER", help="The user's id in your application.", show_default=False)
]
TenantOption = Annotated[str, typer.Option(help="Whose users, where the database serves several customers.")]
DatasetArgument = Annotated[
    Path, typer.Argument(help="A file of JSON Lines, CSV or Parquet, or a folder.", show_default=False)
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--column", metavar="OURS=YOURS", help="What your file calls a column: user_id=annotator.", show_default=False
    ),
]
SkipBadOption = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out rows that are wrong, and name them on stderr.")
]
FormatOption = Annotated[str, typer.Option("--format", help="auto, own, or another program's (docs/data.md).")]
FeedbackOption = Annotated[str, typer.Option(help="comparisons, or ratings: what users adapt to.")]
EncoderOption = Annotated[
    str, typer.Option(help="minilm, an exported encoder's folder, remote:PROTOCOL:MODEL, or precomputed.")
]
SeedOption = Annotated[int, typer.Option(help="The only source of randomness.")]
TextsOption = Annotated[
    str, typer.Option(help="Judge by texts that the fit has seen (known), by new ones, or by both (auto).")
]
JsonOption = Annotated[
    Path | None,
    typer.Option("--json", help="Also write the result here, as JSON; -: only that, on stdout.", show_default=False),
]

# Of a command whose only result is JSON.
OnlyJsonOption = Annotated[
    Path | None,
    typer.Option("--json", help="Write it here, instead of to stdout.", show_default=False),
]


def numbers(text: str, option: str) -> list[int]:
    """Whole numbers separated by commas.

    Raises:
        ConfigurationError: it is something else.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigurationError(f"{option} needs whole numbers with commas, as 0,2,10; not {text!r}.") from None


def named_columns(options: list[str] | None) -> dict[str, str]:
    """Our names of columns and the file's, from ``user_id=annotator`` and the like.

    Raises:
        ConfigurationError: it is something else, or names a column of ours twice.
    """
    columns: dict[str, str] = {}
    for option in options or []:
        ours, _, theirs = (part.strip() for part in option.partition("="))
        if not ours or not theirs:
            raise ConfigurationError(f"--column needs our name and your file's, as user_id=annotator; not {option!r}.")
        if ours in columns:
            raise ConfigurationError(f"--column names {ours} twice; one column of your file can be it.")
        columns[ours] = theirs
    return columns


@contextmanager
def called_right() -> Iterator[None]:
    """Around what checks values of the command line: one that is wrong makes the call wrong (exit code 2).

    Raises:
        ConfigurationError: the block found a value to be wrong.
    """
    try:
        yield
    except InvalidInputError as error:
        raise ConfigurationError(str(error)) from None


def require_id(name: str, value: str) -> None:
    """Makes sure that an id names someone, as in data sets.

    Raises:
        ConfigurationError: it is blank.
    """
    if not value.strip():
        raise ConfigurationError(f"{name} is blank; give an id that names one.")


def age(text: str, option: str) -> timedelta:
    """A duration such as ``90d`` or ``12h``.

    Raises:
        ConfigurationError: it is something else.
    """
    from mrm_sdk.settings import duration

    try:
        return duration(text)
    except ValueError as error:
        raise ConfigurationError(f"{option}: {error}.") from None
