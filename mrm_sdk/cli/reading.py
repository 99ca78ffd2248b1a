"""Reads a data set for a command, and reports what could not be used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mrm_sdk.cli.options import named_columns
from mrm_sdk.cli.output import printable, say
from mrm_sdk.errors import ConfigurationError, DatasetError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mrm_sdk.data.datasets import Dataset


def read_for_learning(
    dataset: Path,
    data_format: str,
    feedback: str = "comparisons",
    *,
    column: list[str] | None = None,
    skip_bad: bool = False,
    limit: int | None = None,
    alone: bool = False,
) -> Dataset:
    """Reads the comparisons of a data set, or those that its ratings make.

    Args:
        dataset: where it is.
        data_format: see :func:`~mrm_sdk.data.datasets.read_dataset`.
        feedback: ``comparisons``, or ``ratings`` to adapt users to their ratings.
        column: see :func:`~mrm_sdk.cli.options.named_columns`.
        skip_bad: see :func:`read_all`.
        limit: most comparisons per user and phase that ratings give.
        alone: also compare ratings with users' thresholds; see :func:`~mrm_sdk.data.rating_pairs.from_ratings`.

    Raises:
        ConfigurationError: there is no such feedback, or no such column of ours.
        DatasetError: it holds ratings only, and comparisons are needed.
    """
    if feedback not in ("comparisons", "ratings"):
        raise ConfigurationError(f"--feedback is 'comparisons' or 'ratings', not {feedback!r}.")
    data = read_all(dataset, data_format, ratings=feedback == "ratings", column=column, skip_bad=skip_bad)
    if feedback == "ratings":
        from mrm_sdk.data.rating_pairs import from_ratings  # loads torch

        return from_ratings(data, limit=limit, alone=alone)
    if data.ratings is not None:
        if not len(data):
            raise DatasetError("It holds ratings only: use --feedback ratings. (mrm compare needs comparisons.)")
        say(f"{len(data.ratings)} ratings are left out; train and evaluate use them with --feedback ratings")
    return data


def read_all(
    dataset: Path,
    data_format: str,
    *,
    ratings: bool = False,
    column: list[str] | None = None,
    skip_bad: bool = False,
) -> Dataset:
    """Reads comparisons and ratings; says on stderr what became of another program's records.

    Args:
        dataset: where it is.
        data_format: see :func:`~mrm_sdk.data.datasets.read_dataset`.
        ratings: also read ratings from a file of their own beside the comparisons.
        column: see :func:`~mrm_sdk.cli.options.named_columns`.
        skip_bad: leave out rows that are wrong; each is named on stderr, and at the end their number.

    Raises:
        ConfigurationError: there is no such column of ours.
        DatasetError: the content is wrong.
    """
    from mrm_sdk.data.datasets import read_dataset
    from mrm_sdk.data.problems import stop

    skipped = 0

    def skip(problem: DatasetError) -> None:
        nonlocal skipped
        skipped += 1
        say(f"left out: {problem}")

    columns = named_columns(column)
    try:
        data = read_dataset(
            dataset, format=data_format, ratings=ratings, columns=columns, on_bad_row=skip if skip_bad else stop
        )
    finally:
        if skipped:
            say(f"{skipped} bad row{'s' if skipped > 1 else ''} left out")
    if data.reading is not None:
        say(data.reading)
    return data


def say_refused(dataset: Dataset, rows: NDArray[np.int64], reason: str) -> None:
    """Says on stderr which comparisons are left out because an encoder does not take one of their texts."""
    others = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    say(printable(f"left out: {dataset.place(int(rows[0]))}{others}: {reason}"))
