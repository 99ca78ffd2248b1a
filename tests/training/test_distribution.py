"""Adapting held-out users in the space of their comparisons equals adapting them as serving does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.inner_loop import Prior, newton_serving
from mrm_sdk.core.posterior import laplace_covariance
from mrm_sdk.training.distribution import WeightDistribution, adapt_white, root_of
from tests.core.objective import objective

R = 5


def population(seed: int = 0, scale: float = 1.0) -> WeightDistribution:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(R, R, generator=generator, dtype=torch.float64) * scale / R**0.5
    mean = torch.randn(R, generator=generator, dtype=torch.float64)
    return WeightDistribution(mean, root @ root.T + 0.05 * scale**2 * torch.eye(R, dtype=torch.float64))


def feedback(users: int = 6, count: int = 9, seed: int = 1) -> Pairs:
    """Comparisons with ties, strengths and padding of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(users, count, R, generator=generator, dtype=torch.float64)
    strength = torch.rand(users, count, generator=generator, dtype=torch.float64) * 3 + 0.1
    for user in range(users):
        strength[user, count - user :] = 0
    return Pairs(z, strength, (torch.rand(users, count, generator=generator) < 0.3).double())


def prior_of(learned: WeightDistribution) -> Prior:
    return Prior(learned.mean, torch.linalg.inv(learned.covariance), torch.ones((), dtype=torch.float64))


def in_original_coordinates(
    learned: WeightDistribution, pairs: Pairs, *, dtype: torch.dtype = torch.float32, **options: int
) -> tuple[Tensor, Tensor]:
    """Weights and covariances as :func:`adapt_white` has them."""
    root = root_of(learned.covariance)
    white = torch.linalg.solve(root, learned.mean)
    white_pairs = Pairs(*(field.to(dtype) for field in (pairs.z @ root, pairs.strength, pairs.tie)))
    offset, explained = (field.double() for field in adapt_white(white_pairs, white.to(dtype), **options))
    inner = torch.eye(R, dtype=torch.float64) - explained.mT @ explained
    return (white + offset) @ root.T, root @ inner @ root.T


@pytest.mark.parametrize("ties", [0.0, 0.5, 1.0])
def test_adaptation_is_the_one_that_serves(ties: float) -> None:
    learned, pairs = population(), feedback()
    pairs = pairs._replace(tie=pairs.tie * 0 + ties)
    expected = newton_serving(pairs, prior_of(learned), max_steps=50, tolerance=1e-12)
    weights, covariance = in_original_coordinates(learned, pairs)
    torch.testing.assert_close(weights, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(covariance, laplace_covariance(expected, pairs, prior_of(learned)), atol=1e-4, rtol=0)


def test_adaptation_with_ties_strengths_and_padding() -> None:
    learned, pairs = population(3), feedback(seed=4)
    expected = newton_serving(pairs, prior_of(learned), max_steps=50, tolerance=1e-12)
    weights, covariance = in_original_coordinates(learned, pairs)
    torch.testing.assert_close(weights, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(covariance, laplace_covariance(expected, pairs, prior_of(learned)), atol=1e-4, rtol=0)
    junk = torch.where(pairs.strength.unsqueeze(-1) == 0, 1e3, pairs.z)
    again, _ = in_original_coordinates(learned, pairs._replace(z=junk))
    torch.testing.assert_close(again, weights, atol=1e-5, rtol=0)


def test_without_comparisons_a_user_is_the_average_one() -> None:
    pairs = feedback()
    offset, explained = adapt_white(pairs._replace(strength=pairs.strength * 0), torch.ones(R, dtype=torch.float64))
    assert not bool(offset.any())
    assert not bool(explained.any())


@pytest.mark.parametrize("strength", [100.0, 1e6])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_users_who_never_err_are_adapted_to_like_in_serving(strength: float, scale: float) -> None:
    learned, pairs = population(scale=scale), feedback()
    taste = torch.ones(R, dtype=torch.float64)
    z = pairs.z * torch.where(pairs.z @ taste < 0, -1.0, 1.0).unsqueeze(-1)
    pairs = Pairs(z, (pairs.strength > 0) * strength, torch.zeros_like(pairs.tie))
    mean, covariance = in_original_coordinates(learned, pairs)
    assert bool(torch.isfinite(mean).all())
    assert bool(torch.isfinite(covariance).all())
    # Enough steps of at most 4 nats reach the minimum even here.
    mean, _ = in_original_coordinates(learned, pairs, dtype=torch.float64, steps=100)
    best = newton_serving(pairs, prior_of(learned), max_steps=200, tolerance=1e-10)
    values = [objective(weights, pairs, prior_of(learned)) for weights in (mean, best)]
    torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=1e-6)
