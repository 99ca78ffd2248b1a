"""The commands, one module each: its options and its work. Heavy libraries are imported only when a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from mrm_sdk.cli.commands import (
    check,
    compare,
    db,
    demo,
    doctor,
    encoder,
    evaluate,
    import_feedback,
    rank,
    rebuild,
    record,
    train,
    user_data,
)
from mrm_sdk.cli.output import echo
from mrm_sdk.cli.parser import Command, Commands
from mrm_sdk.version import __version__

app = typer.Typer(
    name="mrm",
    cls=Commands,
    help="A reward model for every user of your application.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        echo(f"mrm-sdk {__version__}")
        raise typer.Exit


app.command(cls=Command)(demo.demo)
app.command(cls=Command)(check.check)
app.command(cls=Command)(train.train)
app.command(cls=Command)(evaluate.evaluate)
app.command(cls=Command)(compare.compare)
app.command("import", cls=Command)(import_feedback.import_feedback)
app.command(cls=Command)(record.record)
app.command(cls=Command)(rank.rank)
app.command(cls=Command)(user_data.users)
app.command(cls=Command)(user_data.summary)
app.command(cls=Command)(user_data.export)
app.command(cls=Command)(user_data.forget)
app.command(cls=Command)(user_data.prune)
app.command(cls=Command)(rebuild.rebuild)
app.command(cls=Command)(doctor.doctor)
app.add_typer(db.app, name="db")
app.add_typer(encoder.app, name="encoder")
