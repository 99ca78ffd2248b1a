"""Meta Reward Modeling as a method to compare, as published and as shipped."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.core.inner_loop import SERVING_STEPS, SERVING_TOLERANCE, gradient_descent, newton_serving
from mrm_sdk.core.posterior import laplace_covariance
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.encoders.handcrafted import Statistics, count_features
from mrm_sdk.evaluation.method import FittedMethod
from mrm_sdk.progress import Progress
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.fitting import Trained, fit
from mrm_sdk.training.handcrafted_share import choose_handcrafted_share


def fit_newton(
    dataset: Dataset, users: NDArray[np.int64], embeddings: Tensor, *, seed: int, progress: Progress
) -> FittedMethod:
    """Meta-trains as ``mrm train`` does, with features counted in the text where they help. Arguments: :class:`Fit`."""
    config = TrainingConfig.preset("newton", seed=seed)
    if dataset.dimension is None:
        measured = count_features([(item.prompt, item.text or "") for item in dataset.items])
        share = choose_handcrafted_share(dataset, users, embeddings.numpy(), measured, config)
        if share:
            counted = Statistics.of(measured, embeddings.numpy(), share=share).apply(measured)
            embeddings = torch.cat([embeddings, torch.from_numpy(counted)], 1)
    return _fit(dataset, users, embeddings, config, progress)


def fit_paper(
    dataset: Dataset, users: NDArray[np.int64], embeddings: Tensor, *, seed: int, progress: Progress
) -> FittedMethod:
    """Meta-trains the preset ``paper``. Arguments, errors: :class:`Fit`."""
    config = TrainingConfig.preset("paper", seed=seed)
    return _fit(dataset, users, embeddings, config, progress)


def _fit(
    dataset: Dataset, users: NDArray[np.int64], embeddings: Tensor, config: TrainingConfig, progress: Progress
) -> FittedMethod:
    trained = fit(dataset, users, embeddings.numpy(), config, progress)
    if config.method == "newton":
        return as_served(trained, embeddings)
    steps, rate = config.maml.inner_steps, config.maml.inner_learning_rate
    adapt = partial(gradient_descent, logits=trained.prior.w0, steps=steps, learning_rate=rate)
    return FittedMethod(_base_rewards(trained, embeddings), adapt)


def as_served(trained: Trained, embeddings: Tensor) -> FittedMethod:
    """What was learned, with Newton's method as a client has it; embeddings are of all items, [items, D] float32."""
    prior = trained.prior
    return FittedMethod(
        _base_rewards(trained, embeddings),
        partial(newton_serving, prior=prior, max_steps=SERVING_STEPS, tolerance=SERVING_TOLERANCE),
        partial(laplace_covariance, prior=prior),
        discounts_repetition=True,
    )


@torch.no_grad()
def _base_rewards(trained: Trained, embeddings: Tensor) -> Tensor:
    base_rewards: Tensor = trained.module(embeddings)
    return base_rewards.double()
