"""Whether features counted in the text help to judge texts that a fit does not know, and how much they should count."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.core.torch_defaults import own_torch_defaults
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.encoders.handcrafted import Statistics
from mrm_sdk.progress import no_progress
from mrm_sdk.training.config import MamlConfig, TrainingConfig
from mrm_sdk.training.device import one_thread
from mrm_sdk.training.folds import make_folds
from mrm_sdk.training.outer_loops import EmpiricalBayes

SHARES: Final = (0.0, 0.3, 1.0)
"""Of the embeddings' variance; 0 leaves the features out."""


@own_torch_defaults()
def choose_handcrafted_share(
    dataset: Dataset,
    users: NDArray[np.int64],
    embeddings: NDArray[np.floating],
    measured: NDArray[np.floating],
    config: TrainingConfig,
) -> float:
    """The share with which utilities that all users share predict best what other users say of other texts.

    Args:
        dataset: users' comparisons.
        users: indices of those to learn from.
        embeddings: of all items, [items, D].
        measured: handcrafted features of all items, [items, F].
        config: of the training.

    Returns:
        One of :data:`SHARES`; 0 where no text can be held back, and for MAML.
    """
    if isinstance(config.outer, MamlConfig):
        return 0.0
    with one_thread():
        _, folds = make_folds(dataset, users, config)
        trials = [draw for fold in folds for draw in fold.draws()]
        best, least = 0.0, math.inf
        for share in SHARES:
            joined = np.asarray(embeddings, np.float32)
            if share:
                added = Statistics.of(measured, embeddings, share=share).apply(measured)
                joined = np.concatenate([joined, added], axis=1)
            loss = EmpiricalBayes(dataset, users, joined, config, no_progress).choose_penalty(trials)
            if loss < least:
                best, least = share, loss
        return best
