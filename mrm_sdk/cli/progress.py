"""Progress bars on stderr, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mrm_sdk.training.meta import Progress


@contextmanager
def progress() -> Iterator[Progress]:
    """Yields a function that shows how far each stage is; where nobody watches, it does nothing."""
    if not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:22}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            # One step that has not been done yet says nothing of how far it is: the bar then only moves.
            known = None if (done, total) == (0, 1) else total
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=known)
            bars.update(tasks[stage], completed=done, total=known)

        yield report
