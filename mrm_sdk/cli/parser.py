"""How ``mrm`` shows its options, and how Ctrl-C ends it."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from mrm_sdk.cli.output import INTERRUPTED, say


class Command(TyperCommand):
    """A command whose flags are shown without a type."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All parameters, as typer shows them."""
        return _shown(super().get_params(ctx))


class Commands(TyperGroup):
    """A group of commands; Ctrl-C ends each with a line and exit code 130, where typer would say nothing."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All parameters, as typer shows them."""
        return _shown(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        """Runs a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            say(str(stop) or INTERRUPTED)
            raise typer.Exit(130) from None


def _shown(parameters: list[Any]) -> list[Any]:
    """The same parameters: flags take no value, so none is shown."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters
