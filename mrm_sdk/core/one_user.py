"""The inner loops for a single user, in numpy: what serving runs.

The mathematics is that of :mod:`mrm_sdk.core.inner_loop`, which is for batches. One user's matrices are so small that
torch's threads cost more than the work: on a machine whose cores are busy, each operation waits for a core. LAPACK
computes them in the calling thread, and no default of the host's torch (type, device, gradients) takes part.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.inner_loop import Prior

_Array = NDArray[np.float64]


class OneUser(NamedTuple):
    """A user's comparisons, as in :class:`~mrm_sdk.core.batching.Pairs`.

    Args:
        z: [pairs, K].
        strength: [pairs].
        tie: [pairs].
    """

    z: _Array
    strength: _Array
    tie: _Array

    @classmethod
    def of(cls, pairs: Pairs) -> OneUser:
        """The only user of a batch of one."""
        return cls(*(field[0].numpy() for field in pairs))


class PriorArrays(NamedTuple):
    """A :class:`~mrm_sdk.core.inner_loop.Prior`: w0 [K], Λ [K, K], ρ."""

    w0: _Array
    precision: _Array
    rho: float

    @classmethod
    def of(cls, prior: Prior) -> PriorArrays:
        """The same numbers."""
        return cls(prior.w0.numpy(), prior.precision.numpy(), float(prior.rho))


def newton(user: OneUser, prior: PriorArrays, *, max_steps: int, tolerance: float) -> tuple[_Array, _Array]:
    """The minimum of J, as :func:`mrm_sdk.core.inner_loop.newton_serving` finds it, and the Laplace covariance there.

    Args:
        user: the comparisons.
        prior: where every user starts.
        max_steps: bound on the steps.
        tolerance: largest change of a weight that counts as converged.

    Returns:
        Weights [K] and covariance [K, K].

    Raises:
        numpy.linalg.LinAlgError: the Hessian is singular in float64.
    """
    z, half_tie = user.z, user.tie / 2
    strength = prior.rho * user.strength

    def at(weights: _Array) -> tuple[_Array, _Array, float]:
        margin = z @ weights
        offset = weights - prior.w0
        pull = prior.precision @ offset
        loss = np.logaddexp(0, -margin) + half_tie * margin
        return margin, pull, float(strength @ loss + pull @ offset / 2)

    def hessian(lost: _Array) -> _Array:
        return prior.precision + z.T @ ((strength * (lost - lost * lost))[:, None] * z)

    weights = prior.w0
    margin, pull, value = at(weights)
    for _ in range(max_steps):
        lost = _lost(margin)
        step = np.linalg.solve(hessian(lost), (strength * (half_tie - lost)) @ z + pull)
        if np.abs(step).max() <= tolerance:
            weights = weights - step
            break
        for _ in range(20):
            candidate = weights - step
            margin, pull, new_value = at(candidate)
            if not new_value > value * (1 + 1e-12):  # the slack allows for rounding where J is flat
                break
            step = step / 2
        else:  # no part of the step helps
            break
        weights, value = candidate, new_value
    covariance = np.asarray(np.linalg.inv(hessian(_lost(z @ weights))), np.float64)
    return weights, covariance


def gradient_descent(user: OneUser, logits: _Array, *, steps: int, learning_rate: float) -> _Array:
    """The published inner loop, as :func:`mrm_sdk.core.inner_loop.gradient_descent`: weights [K], summing to 1."""
    z, half_tie = user.z, user.tie / 2
    share = user.strength / max(float(user.strength.sum()), np.finfo(np.float64).tiny)
    first, second = np.zeros_like(logits), np.zeros_like(logits)
    for step in range(1, steps + 1):
        weights = _softmax(logits)
        by_weight = (share * (half_tie - _lost(z @ weights))) @ z
        gradient = weights * (by_weight - weights @ by_weight)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        scale = np.sqrt(second / (1 - 0.999**step)) + 1e-8
        logits = logits - learning_rate * (first / (1 - 0.9**step)) / scale
    return _softmax(logits)


def _lost(margin: _Array) -> _Array:
    """Probability that each comparison came out the other way; exact for margins of any size."""
    lost: _Array = np.exp(-np.logaddexp(0, margin))
    return lost


def _softmax(logits: _Array) -> _Array:
    powers: _Array = np.exp(logits - logits.max())
    powers /= powers.sum()
    return powers
