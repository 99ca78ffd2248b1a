"""The inner loops for one user in numpy, against those for batches in torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mrm_sdk.core import inner_loop, one_user
from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.posterior import laplace_covariance
from tests.core.test_inner_loop import alone, make_prior, make_user


def serve(user: Pairs, prior: inner_loop.Prior) -> tuple[np.ndarray, np.ndarray]:
    arrays = one_user.PriorArrays.of(prior)
    return one_user.newton(one_user.OneUser.of(alone(user)), arrays, max_steps=50, tolerance=1e-9)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0, 1e6])
@pytest.mark.parametrize(("pairs", "size"), [(0, 3), (1, 1), (7, 4), (200, 16)])
def test_newton_and_covariance_are_those_of_the_batch(pairs: int, size: int, scale: float) -> None:
    user, prior = make_user(pairs, size, seed=pairs), make_prior(size)
    user = user._replace(z=user.z * scale)
    expected = inner_loop.newton_serving(alone(user), prior, max_steps=50, tolerance=1e-9)
    weights, covariance = serve(user, prior)
    np.testing.assert_allclose(weights, expected[0], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(covariance, laplace_covariance(expected, alone(user), prior)[0], rtol=1e-6, atol=1e-9)


def test_a_user_without_comparisons_keeps_the_prior_exactly() -> None:
    prior = make_prior(5)
    weights, _ = serve(make_user(0, 5, seed=0), prior)
    assert np.array_equal(weights, prior.w0)


@pytest.mark.parametrize(("pairs", "size"), [(0, 3), (1, 1), (40, 8)])
def test_gradient_descent_is_that_of_the_batch(pairs: int, size: int) -> None:
    user, prior = make_user(pairs, size, seed=3), make_prior(size)
    expected = inner_loop.gradient_descent(alone(user), prior.w0, steps=7, learning_rate=0.05)
    ours = one_user.gradient_descent(one_user.OneUser.of(alone(user)), prior.w0.numpy(), steps=7, learning_rate=0.05)
    np.testing.assert_allclose(ours, expected[0], rtol=1e-12)


def test_a_singular_hessian_is_an_error() -> None:
    prior = make_prior(2)._replace(precision=torch.zeros(2, 2, dtype=torch.float64))
    with pytest.raises(np.linalg.LinAlgError):
        serve(make_user(0, 2, seed=0), prior)
