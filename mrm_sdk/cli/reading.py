"""Reading a data set for a command, and saying what could not be used; imports training's data sets."""

from __future__ import annotations

import sys
from pathlib import Path

from mrm_sdk.errors import ConfigurationError
from mrm_sdk.training.datasets import Dataset, read_dataset


def read(dataset: Path, data_format: str, feedback: str = "comparisons", *, limit: int | None = None) -> Dataset:
    """Reads a data set; what became of another program's records is said on stderr.

    Args:
        dataset: where it is.
        data_format: see :func:`~mrm_sdk.training.datasets.read_dataset`.
        feedback: ``ratings`` lets them take the place of support comparisons.
        limit: most comparisons per user and phase that ratings give.

    Raises:
        ConfigurationError: there is no such feedback.
    """
    if feedback not in ("comparisons", "ratings"):
        raise ConfigurationError(f"--feedback is 'comparisons' or 'ratings', not {feedback!r}.")
    data = read_dataset(dataset, format=data_format, ratings=feedback == "ratings")
    if data.reading is not None:
        print(data.reading, file=sys.stderr)  # noqa: T201
    if feedback == "ratings":
        from mrm_sdk.training.rated import from_ratings  # loads torch

        data = from_ratings(data, limit=limit)
    return data
