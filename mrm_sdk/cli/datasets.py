"""Reading a data set for a command, and saying what could not be used; imports training's data sets."""

from __future__ import annotations

from pathlib import Path

from mrm_sdk.cli.output import say
from mrm_sdk.data.datasets import Dataset, read_dataset
from mrm_sdk.errors import ConfigurationError, DatasetError


def read(dataset: Path, data_format: str, feedback: str = "comparisons", *, limit: int | None = None) -> Dataset:
    """Reads a data set; what became of another program's records is said on stderr.

    Args:
        dataset: where it is.
        data_format: see :func:`~mrm_sdk.data.datasets.read_dataset`.
        feedback: ``ratings`` lets them take the place of support comparisons.
        limit: most comparisons per user and phase that ratings give.

    Raises:
        ConfigurationError: there is no such feedback.
        DatasetError: it holds ratings only, and comparisons are wanted.
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
        left_out = f"{len(data.ratings)} ratings are left out; train and evaluate use them with --feedback ratings"
        say(left_out)
    return data


def read_all(dataset: Path, data_format: str, *, ratings: bool = False) -> Dataset:
    """Reads comparisons, and the ratings among them; what became of another program's records is said on stderr.

    Args:
        dataset: where it is.
        data_format: see :func:`~mrm_sdk.data.datasets.read_dataset`.
        ratings: also those that lie beside comparisons in a file of their own.
    """
    data = read_dataset(dataset, format=data_format, ratings=ratings)
    if data.reading is not None:
        say(data.reading)
    return data
