"""``mrm import``: the feedback of a data set becomes events in a database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrm_sdk.cli.options import ColumnOption, DatabaseOption, DatasetArgument, FormatOption, JsonOption, SkipBadOption
from mrm_sdk.cli.output import printable, require_file, say, show
from mrm_sdk.cli.progress import progress
from mrm_sdk.cli.reading import read_all
from mrm_sdk.cli.stored import recorder

if TYPE_CHECKING:
    from mrm_sdk.data.datasets import Dataset as LoadedDataset
    from mrm_sdk.progress import Progress
    from mrm_sdk.schemas.feedback import Feedback
    from mrm_sdk.schemas.results import Recorded

_EVENTS_PER_REPORT = 500
_SHOWN = 10


def import_feedback(
    dataset: DatasetArgument,
    database: DatabaseOption,
    tenant: Annotated[str, typer.Option(help="Whose rows they become.")] = "default",
    bundle: Annotated[
        Path | None, typer.Option(help="Compute features now, under this bundle, instead of on first use.")
    ] = None,
    data_format: FormatOption = "auto",
    column: ColumnOption = None,
    skip_bad: SkipBadOption = False,
    json_file: JsonOption = None,
) -> None:
    """Records a data set's comparisons in a database; doing it twice adds nothing."""
    require_file(json_file)
    recorded, refused = _record(
        dataset, database, tenant, bundle, partial(read_all, dataset, data_format, column=column, skip_bad=skip_bad)
    )
    lines = [f"accepted    {recorded.accepted}", f"duplicates  {recorded.duplicates}"]
    lines += [f"refused     {len(recorded.rejected)}"]
    lines += [f"  {printable(reason)}" for reason in refused]
    show("\n".join(lines), recorded.model_dump(mode="json"), json_file)
    if recorded.rejected:
        raise typer.Exit(1)


def _record(
    dataset: Path, url: str, tenant: str, bundle: Path | None, read: Callable[[], LoadedDataset]
) -> tuple[Recorded, list[str]]:
    """Records all feedback of ``dataset``; with a bundle, features are computed at once.

    Returns:
        What was recorded, and of the first events that were refused, where they stand and why.

    A file of ratings beside comparisons is left out, with a note on stderr: comparisons are usually made from the
    ratings beside them, which would then count twice.
    """
    from mrm_sdk.data.rows import SUFFIXES

    with progress() as report, recorder(url, tenant, bundle) as record:
        data = read()
        ratings = next((path for suffix in SUFFIXES if (path := dataset / f"ratings{suffix}").is_file()), None)
        if ratings is not None and len(data):
            say(f"{ratings.name} is left out: the comparisons beside it are usually made from it")
        recorded = record(_reported(data, report))
    return recorded, [f"{data.place(index)}: {reason}" for index, reason in recorded.rejected[:_SHOWN]]


def _reported(data: LoadedDataset, report: Progress) -> Iterator[Feedback]:
    total = len(data) + len(data.ratings or ())
    for number, judgement in enumerate(data.feedback(), 1):
        yield judgement
        if number % _EVENTS_PER_REPORT == 0 or number == total:
            report("recording", number, total)
