"""Which texts judge a fit: those that it has seen, as answers of a catalogue, or new ones, as a model's answers are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.data.contents import QUERY
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.errors import DatasetError
from mrm_sdk.evaluation.measure import judgeable
from mrm_sdk.evaluation.splits import Split, learners_of, only_rows
from mrm_sdk.evaluation.texts import CORNERS, Corner
from mrm_sdk.training.new_texts import text_folds, text_groups


def judged_by(dataset: Dataset, corner: Corner, known: NDArray[np.bool_]) -> Dataset:
    """The data set without query comparisons other than of two known texts, or of two new ones.

    Args:
        dataset: the users to judge; their support stays.
        corner: which texts.
        known: whether a fit has seen each item, [items].
    """
    of_kind = known if corner == "known" else ~known
    kept = of_kind[dataset.chosen] & of_kind[dataset.rejected]
    return only_rows(dataset, np.flatnonzero(kept | (dataset.phase != QUERY)))


def corners_of(split: Split) -> list[Corner]:
    """What ``auto`` judges: known texts where most of what is judged is of texts that come again, and new texts."""
    return list(CORNERS) if _share(split, "known") >= 0.5 else ["new"]


def cornered(split: Split, corner: Corner, rng: np.random.Generator) -> Split:
    """A split whose users are judged by one kind of texts alone.

    Where what is judged has few new texts, a quarter of the texts that are learned from is held back, with whole
    prompts where comparisons are of answers to one prompt: no comparison of these is learned from.

    Args:
        split: of the people.
        corner: which texts.
        rng: draws the texts that are held back.

    Returns:
        The split; ``users`` may be empty.
    """
    if corner == "new" and _share(split, "new") < 0.5:
        training = split.training
        (held_back,) = text_folds(text_groups(training, np.arange(len(training))), 1, rng)
        seen = ~held_back[training.chosen] & ~held_back[training.rejected]
        training = only_rows(training, np.flatnonzero(seen))
        split = split._replace(training=training, learners=learners_of(training))
    judged = judged_by(split.judged, corner, _seen(split))
    return split._replace(judged=judged, users=_judgeable(judged, split.users))


def _seen(split: Split) -> NDArray[np.bool_]:
    """The items that are learned from, [items]; both data sets of a split number them alike."""
    seen = np.zeros(len(split.judged.items), np.bool_)
    seen[split.training.chosen] = seen[split.training.rejected] = True
    return seen


def _share(split: Split, corner: Corner) -> float:
    """How much of what is judged is of this kind."""
    judged, seen = split.judged, _seen(split)
    rows = (judged.phase == QUERY) & np.isin(judged.user, split.users)
    of_kind = seen if corner == "known" else ~seen
    return float((of_kind[judged.chosen] & of_kind[judged.rejected])[rows].mean())


def _judgeable(dataset: Dataset, among: NDArray[np.int64]) -> NDArray[np.int64]:
    try:
        return judgeable(dataset, among)
    except DatasetError:
        return among[:0]
