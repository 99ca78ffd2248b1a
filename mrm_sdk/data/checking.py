"""What is wrong with a data set, how much is in it, and whether that is enough to learn from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.data.datasets import Dataset, Reading, read_dataset
from mrm_sdk.data.items import EMBEDDINGS
from mrm_sdk.data.readers.source import Reader
from mrm_sdk.errors import DatasetError

# Adapting pays from about this many users on who can be adapted to so many comparisons, and judged on as many others
# (export/experiments/measure_users.py).
ENOUGH_USERS, ENOUGH_SHOTS = 100, 10
_SHOTS = (2, 5, ENOUGH_SHOTS, 20)
_QUANTILES = {"min": 0.0, "p10": 0.1, "p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9, "max": 1.0}
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Amounts:
    """How much is in a data set.

    Args:
        users: how many.
        comparisons: how many, those of rankings included.
        ratings: how many, thumbs included.
        texts: distinct responses to distinct prompts.
        comparisons_per_user: quantiles over all users, from ``min`` over ``p10`` and ``median`` to ``max``.
        ratings_per_user: the same of ratings.
        users_by_shots: how many users have so many comparisons to adapt to, and as many others to be judged on; where
            there are no comparisons, of those that the ratings make.
    """

    users: int
    comparisons: int
    ratings: int
    texts: int
    comparisons_per_user: Mapping[str, int]
    ratings_per_user: Mapping[str, int]
    users_by_shots: Mapping[int, int]

    @property
    def enough(self) -> bool:
        """Whether to expect that a bundle trained on it personalizes."""
        return self.users_by_shots[ENOUGH_SHOTS] >= ENOUGH_USERS


@dataclass(frozen=True)
class Checkup:
    """What was found.

    Args:
        problems: all rows that are wrong, each with file and line, in the order of the files, and, last, what stopped
            the reading.
        amounts: of all other rows; ``None`` where the reading was stopped.
        reading: what became of the records of another program's format.
    """

    problems: list[str]
    amounts: Amounts | None
    reading: Reading | None

    def as_json(self) -> dict[str, Any]:
        """Returns it for programs."""
        amounts = None if self.amounts is None else {**asdict(self.amounts), "enough": self.amounts.enough}
        left_out = {} if self.reading is None else dict(self.reading.skipped)
        return {"problems": self.problems, "amounts": amounts, "left_out": left_out}


def check_dataset(
    path: str | Path, *, format: str | Reader = "auto", columns: Mapping[str, str] | None = None
) -> Checkup:
    """Reads all of a data set, ratings beside comparisons included, and gathers what is wrong in place of stopping.

    Args:
        path: see :func:`~mrm_sdk.data.datasets.read_dataset`.
        format: see there.
        columns: see there.

    Raises:
        NotFoundError: there is nothing at ``path``.
        ConfigurationError: there is no such format, or no such column of ours or of the file.
        MissingDependencyError: an extra is not installed.
    """
    problems: list[str] = []
    try:
        data = read_dataset(
            path,
            format=format,
            ratings=True,
            columns=columns,
            on_bad_row=lambda problem: problems.append(str(problem)),
        )
    except DatasetError as error:
        return Checkup([*problems, str(error)], None, None)
    problems += _bad_embeddings(data)
    judged = data
    if not len(data):
        from mrm_sdk.data.rating_pairs import from_ratings  # loads torch

        try:
            judged = from_ratings(data, limit=max(_SHOTS))
        except DatasetError as error:
            problems.append(f"{path}: {error}")
    return Checkup(problems, _amounts(data, judged), data.reading)


def _amounts(data: Dataset, judged: Dataset) -> Amounts:
    users = len(data.user_ids)
    halves = [np.bincount(judged.user[judged.phase == phase], minlength=users) for phase in (SUPPORT, QUERY)]
    rated = np.zeros(0, np.int64) if data.ratings is None else data.ratings.user
    return Amounts(
        users=users,
        comparisons=len(data),
        ratings=len(rated),
        texts=len(data.items),
        comparisons_per_user=_quantiles(np.bincount(data.user, minlength=users)),
        ratings_per_user=_quantiles(np.bincount(rated, minlength=users)),
        users_by_shots={shots: int((np.minimum(*halves) >= shots).sum()) for shots in _SHOTS},
    )


def _quantiles(counts: NDArray[np.int64]) -> dict[str, int]:
    values = np.quantile(counts, list(_QUANTILES.values()), method="inverted_cdf")
    return dict(zip(_QUANTILES, map(int, values), strict=True))


def _bad_embeddings(data: Dataset) -> Iterator[str]:
    """Rows of a mapped file that hold NaN or infinity; they are read in parts."""
    if data.embeddings is None:
        return
    for start in range(0, len(data.embeddings), _ROWS_AT_ONCE):
        with np.errstate(invalid="ignore", over="ignore"):
            part = np.asarray(data.embeddings[start : start + _ROWS_AT_ONCE], np.float32)
        for row in np.flatnonzero(~np.isfinite(part).all(1)):
            yield f"{EMBEDDINGS}, row {start + row} (counted from 0): NaN or infinity"
