"""The commands, one module each: its options and its work. Heavy libraries are imported only when a command runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mrm_sdk.cli.commands import check, compare, db, demo, doctor, encoder, evaluate, import_feedback, rebuild, train
from mrm_sdk.cli.output import INTERRUPTED, echo, say
from mrm_sdk.version import __version__


class _Commands(TyperGroup):
    """All commands; Ctrl-C ends each with a line and exit code 130, where typer would say nothing."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            say(str(stop) or INTERRUPTED)
            raise typer.Exit(130) from None


app = typer.Typer(
    name="mrm",
    cls=_Commands,
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


app.command()(demo.demo)
app.command()(check.check)
app.command()(train.train)
app.command()(evaluate.evaluate)
app.command()(compare.compare)
app.command("import")(import_feedback.import_feedback)
app.command()(rebuild.rebuild)
app.command()(doctor.doctor)
app.add_typer(db.app, name="db")
app.add_typer(encoder.app, name="encoder")
