"""Progress bars on stderr, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mrm_sdk.progress import Progress, no_progress

if TYPE_CHECKING:
    from rich.progress import Task
    from rich.text import Text


@contextmanager
def progress() -> Iterator[Progress]:
    """Yields a function that shows how far each stage is, how fast it goes, and how long it will take.

    Without a terminal the function does nothing.
    """
    if not sys.stderr.isatty():
        yield no_progress
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Rate(ProgressColumn):
        """Units per second."""

        def render(self, task: Task) -> Text:
            return Text(rate(task.finished_speed or task.speed), style="progress.data.speed")

    columns = (
        TextColumn("{task.description:22}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True, expand=True) as bars:
        tasks: dict[str, TaskID] = {}
        seen: dict[str, int] = {}

        def report(stage: str, done: int, total: int) -> None:
            # One step that has not been done yet says nothing of how far it is: the bar then only moves.
            known = None if (done, total) == (0, 1) else total
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=known)
            elif done < seen[stage]:  # the stage runs once more, as on each fold
                bars.reset(tasks[stage], total=known)
            seen[stage] = done
            bars.update(tasks[stage], completed=done, total=known)

        yield report


def rate(per_second: float | None) -> str:
    """A speed, as ``13/s``; nothing where it is not known yet."""
    if not per_second:
        return ""
    return f"{per_second:,.0f}/s" if per_second >= 10 else f"{per_second:.1f}/s"
