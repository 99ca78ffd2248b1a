"""A logistic regression per user, without anything from other users."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrm_sdk.core.batching import Pairs
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.errors import MissingDependencyError
from mrm_sdk.evaluation.method import FittedMethod
from mrm_sdk.evaluation.methods.preparation import prepare_users, query_loss
from mrm_sdk.progress import Progress
from mrm_sdk.training.device import one_thread

# Inverse strengths of the penalty, in scikit-learn's sense.
CS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
# More users than these hardly change which C is best, and each costs a regression per C and number of shots.
CHOOSING_USERS = 200


def fit(
    dataset: Dataset, users: NDArray[np.int64], embeddings: Tensor, *, seed: int, progress: Progress
) -> FittedMethod:
    """Learns only the strength of the penalty from the training users. Arguments, errors: :class:`Fit`.

    Returns:
        The scaled embeddings as features. A user without support has weights 0: every response scores the
        same, because anything else would come from other users.
    """
    prepared = prepare_users(dataset, users, embeddings, seed=seed)
    sample = prepared.users.users(prepared.fold.argsort(stable=True)[:CHOOSING_USERS])
    losses = []
    for number, c in enumerate(CS):
        losses.append(query_loss(FittedMethod(prepared.embeddings, partial(regress, c=c)), sample))
        progress("choosing C", number + 1, len(CS))
    best = CS[int(np.argmin(losses))]
    return FittedMethod(prepared.embeddings, partial(regress, c=best))


def regress(support: Pairs, c: float) -> Tensor:
    """L2-regularised logistic regression of each user, without intercept: [users, pairs, F] -> weights [users, F].

    Args:
        support: comparisons of a batch of users, float64; a tie counts half in both directions.
        c: inverse strength of the penalty.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits  # comes with it
    except ImportError:
        raise MissingDependencyError.of("scikit-learn", "baselines", "The baseline per_user") from None
    weights = torch.zeros(support.z.shape[0], support.z.shape[-1], dtype=torch.float64)
    if not support.strength.shape[1]:
        return weights
    # The regressions are tiny: more threads would only wait for each other.
    with one_thread(), threadpool_limits(1):
        # The penalty keeps the weights in the span of the rows: in a basis of that span the problem is small.
        basis, rows = torch.linalg.qr(support.z.double().mT)
        for user in torch.nonzero((support.strength > 0).any(1)).squeeze(1).tolist():
            real = support.strength[user] > 0
            z = rows[user].T[real].numpy()
            tie, strength = support.tie[user][real].numpy(), support.strength[user][real].numpy()
            # Each comparison appears twice, as z and as −z, because a classifier needs two classes.
            outcome = np.concatenate([np.ones(len(z)), np.zeros(len(z)), np.zeros(len(z)), np.ones(len(z))])
            won, lost = strength * (1 - tie / 2) / 2, strength * tie / 4
            model = LogisticRegression(C=c, fit_intercept=False, solver="newton-cholesky", tol=1e-8, max_iter=1000)
            model.fit(np.concatenate([z, -z, z, -z]), outcome, np.concatenate([won, won, lost, lost]))
            weights[user] = basis[user] @ torch.from_numpy(model.coef_[0])
    return weights
