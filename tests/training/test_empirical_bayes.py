"""Empirical Bayes: adaptation equals the one that serves, and EM finds the population that users were drawn from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.inner_loop import Prior, derivatives, newton_serving
from mrm_sdk.core.losses import bradley_terry
from mrm_sdk.core.posterior import laplace_covariance
from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.training.config import EmpiricalBayesConfig, TrainingConfig
from mrm_sdk.training.empirical_bayes import (
    WeightDistribution,
    adapt_white,
    initial_distribution,
    learn_distribution,
    root_of,
)
from mrm_sdk.training.episodes import Packed, pack
from tests.core.objective import objective
from tests.training.people import embeddings_of, people, rows

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


def evidence(learned: WeightDistribution, users: Packed, features: Tensor) -> float:
    """Log of the probability of what users said, to second order (Laplace)."""
    both = [users.pairs(phase, features.double()) for phase in (SUPPORT, QUERY)]
    pairs = Pairs(*(torch.cat(fields, 1) for fields in zip(*both, strict=True)))
    prior = prior_of(learned)
    weights = newton_serving(pairs, prior, max_steps=50, tolerance=1e-10)
    _, hessian = derivatives(weights, pairs, prior)
    volume = torch.logdet(prior.precision) - torch.logdet(hessian)
    return float((volume / 2 - objective(weights, pairs, prior)).sum())


def setting(users: int = 60, **options: object) -> tuple[Packed, Tensor]:
    data = people(users, dimension=R, noise=1.0, **options)  # type: ignore[arg-type]
    return pack(data, np.arange(users)), torch.from_numpy(embeddings_of(data))


def learn(
    users: Packed, features: Tensor, steps: int = 3, start: WeightDistribution | None = None, **settings: object
) -> WeightDistribution:
    config = TrainingConfig().with_settings(**settings)
    start = start or initial_distribution(features)
    return learn_distribution(
        users, features, config, start=start, iterations=range(steps), after_step=lambda step, so_far: None
    )


def test_a_step_makes_what_users_said_more_likely() -> None:
    users, features = setting()
    path = [initial_distribution(features)]
    for _ in range(8):
        path.append(learn(users, features, 1, path[-1]))
    values = [evidence(learned, users, features) for learned in path]
    gains = np.diff(values)
    assert gains[0] > 5
    assert (gains > -0.01).all(), gains


@pytest.mark.slow
def test_the_population_that_users_were_drawn_from_is_found() -> None:
    rng = np.random.default_rng(4)
    root = rng.standard_normal((R, 2)) * 0.4  # people differ in two directions of five
    mean = np.array([0.7, -0.35, 0.0, 0.56, 0.21])
    tastes = mean + rng.standard_normal((300, 2)) @ root.T
    users, features = setting(300, tastes=tastes, pairs=15, items=80)
    learned = learn(users, features, 20)
    truth, covariance = root @ root.T, learned.covariance.numpy()
    # To second order the spread of tastes comes out too small; which tastes vary does not.
    assert np.linalg.norm(learned.mean.numpy() - mean) < 0.25 * np.linalg.norm(mean)
    assert np.linalg.norm(covariance - truth) < 0.35 * np.linalg.norm(truth)
    assert np.corrcoef(covariance.ravel(), truth.ravel())[0, 1] > 0.98


def assert_same(first: WeightDistribution, second: WeightDistribution, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(first.mean, second.mean, atol=tolerance, rtol=0)
    torch.testing.assert_close(first.covariance, second.covariance, atol=tolerance, rtol=0)


def test_order_of_users_and_of_comparisons_does_not_matter() -> None:
    users, features = setting()
    expected = learn(users, features)
    generator = torch.Generator().manual_seed(0)
    assert_same(learn(users.users(torch.randperm(60, generator=generator)), features), expected)
    order = torch.randperm(8, generator=generator)
    assert_same(learn(Packed(*(field[:, :, order] for field in users)), features), expected)
    swapped = Packed(*(field.flip(1) for field in users))  # both phases are evidence alike
    assert_same(learn(swapped, features), expected)


def test_padding_and_width_do_not_matter() -> None:
    users, features = setting(20)
    wider = Packed(*(torch.cat([field, torch.zeros_like(field)], 2) for field in users))
    assert_same(learn(wider, features), learn(users, features))


def test_users_are_drawn_by_seed_and_step() -> None:
    users, features = setting()
    some = learn(users, features, users_per_iteration=10)
    assert torch.equal(learn(users, features, users_per_iteration=10).mean, some.mean)
    assert not torch.allclose(learn(users, features, users_per_iteration=10, seed=1).mean, some.mean, atol=1e-3)
    # Steps 0 to 2 at once, or a part at a time: a resumed run equals a whole one.
    config = TrainingConfig(outer=EmpiricalBayesConfig(users_per_iteration=10))
    seen: list[tuple[int, WeightDistribution]] = []
    learned = initial_distribution(features)
    for steps in (range(1), range(1, 3)):
        learned = learn_distribution(
            users, features, config, start=learned, iterations=steps, after_step=lambda *step: seen.append(step)
        )
    assert torch.equal(learned.covariance, some.covariance)
    assert [step for step, _ in seen] == [0, 1, 2]
    assert seen[-1][1] is learned


def test_a_hard_mask_is_a_step_on_the_hard_users_alone() -> None:
    users, features = setting(40)
    start = learn(users, features, 2)
    support, query = (users.pairs(phase, features.double()) for phase in (SUPPORT, QUERY))
    weights = newton_serving(support, prior_of(start), max_steps=50, tolerance=1e-10)
    losses = bradley_terry((query.z @ weights.unsqueeze(-1)).squeeze(-1), query.tie).mean(-1)
    hard = torch.nonzero(losses > torch.quantile(losses, 0.75)).squeeze(-1)
    assert len(hard) == 10
    masked = learn(users, features, 1, start, robust_gamma=0.0, robust_ratio=0.25)
    assert_same(masked, learn(users.users(hard), features, 1, start), 1e-5)
    plain = learn(users, features, 1, start)
    assert not torch.allclose(masked.mean, plain.mean, atol=1e-2)
    soft = learn(users, features, 1, start, robust_gamma=0.1)
    assert not torch.allclose(soft.mean, plain.mean, atol=1e-3)


def test_all_users_counts_alike_where_gamma_is_infinite() -> None:
    users, features = setting(20)
    twice = users.users(torch.arange(20).repeat(2))
    assert_same(learn(twice, features), learn(users, features))
    nearly = learn(users, features, robust_gamma=1e6)
    assert_same(nearly, learn(users, features), 1e-3)


@pytest.mark.parametrize("strength", [1e-6, 1.0, 100.0, 1e6])
def test_users_who_never_err_give_a_finite_population(strength: float) -> None:
    data = people(20, dimension=R)
    data = rows(replace(data, strength=np.full(len(data), strength)), np.repeat(np.arange(len(data)), 3))
    users = pack(data, np.arange(20))
    learned = learn(users, torch.from_numpy(embeddings_of(data)), 12)
    assert bool(torch.isfinite(learned.mean).all())
    assert float(torch.linalg.eigvalsh(learned.covariance)[0]) > 0


def test_people_start_alike_in_all_directions() -> None:
    _, features = setting()
    start = initial_distribution(features * 7)
    assert not bool(start.mean.any())
    rewards = (features * 7).double() @ torch.linalg.cholesky(start.covariance)
    assert float(rewards.var(0).sum()) == pytest.approx(1)


def test_a_direction_of_which_nothing_is_left_has_a_root() -> None:
    covariance = torch.diag(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    root = root_of(covariance)
    assert bool(torch.isfinite(root).all())
    torch.testing.assert_close(root @ root.T, covariance, atol=1e-6, rtol=0)
