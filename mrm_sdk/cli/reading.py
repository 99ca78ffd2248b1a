"""Reads a data set for a command, and reports what could not be used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mrm_sdk.cli.output import say
from mrm_sdk.errors import ConfigurationError, DatasetError

if TYPE_CHECKING:
    from mrm_sdk.data.datasets import Dataset


def read_for_learning(
    dataset: Path, data_format: str, feedback: str = "comparisons", *, limit: int | None = None
) -> Dataset:
    """Reads the comparisons of a data set, or those that its ratings make.

    Args:
        dataset: where it is.
        data_format: see :func:`~mrm_sdk.data.datasets.read_dataset`.
        feedback: ``comparisons``, or ``ratings`` to adapt users to their ratings.
        limit: most comparisons per user and phase that ratings give.

    Raises:
        ConfigurationError: there is no such feedback.
        DatasetError: it holds ratings only, and comparisons are needed.
    """
    if feedback not in ("comparisons", "ratings"):
        raise ConfigurationError(f"--feedback is 'comparisons' or 'ratings', not {feedback!r}.")
    data = read_all(dataset, data_format, ratings=feedback == "ratings")
    if feedback == "ratings":
        from mrm_sdk.data.rating_pairs import from_ratings  # loads torch

        return from_ratings(data, limit=limit)
    if data.ratings is not None:
        if not len(data):
            raise DatasetError("It holds ratings only: use --feedback ratings. (mrm compare needs comparisons.)")
        say(f"{len(data.ratings)} ratings are left out; train and evaluate use them with --feedback ratings")
    return data


def read_all(dataset: Path, data_format: str, *, ratings: bool = False) -> Dataset:
    """Reads comparisons and ratings; says on stderr what became of another program's records.

    Args:
        dataset: where it is.
        data_format: see :func:`~mrm_sdk.data.datasets.read_dataset`.
        ratings: also read ratings from a file of their own beside the comparisons.
    """
    from mrm_sdk.data.datasets import read_dataset

    data = read_dataset(dataset, format=data_format, ratings=ratings)
    if data.reading is not None:
        say(data.reading)
    return data
