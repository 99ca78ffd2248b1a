"""From R directions to K base rewards: what is kept, and that a bundle's scale shows nowhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.inner_loop import Prior, newton_serving
from mrm_sdk.core.posterior import laplace_covariance
from mrm_sdk.training.basis import Basis, principal_basis
from mrm_sdk.training.distribution import WeightDistribution
from mrm_sdk.training.outer_loops import Learned
from mrm_sdk.training.reduction import Reduced, freeze, reduce

ITEMS, DIMENSION, R = 50, 9, 6


def learned(seed: int = 0) -> tuple[np.ndarray, Basis, torch.Tensor, WeightDistribution]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(ITEMS, DIMENSION, generator=generator).numpy() + 2
    basis = principal_basis(embeddings, np.arange(ITEMS), limit=R, rng=np.random.default_rng(0))
    root = torch.randn(R, R, generator=generator, dtype=torch.float64)
    mean = torch.randn(R, generator=generator, dtype=torch.float64)
    return embeddings, basis, basis.project(embeddings), WeightDistribution(mean, root @ root.T + 0.1 * torch.eye(R))


def adapted(rewards: torch.Tensor, prior: Prior) -> torch.Tensor:
    """Scores of all items by four users who are adapted to seven comparisons: [users, items]."""
    generator = torch.Generator().manual_seed(5)
    chosen, rejected = (torch.randint(0, ITEMS, (4, 7), generator=generator) for _ in range(2))
    strength = torch.rand(4, 7, generator=generator, dtype=torch.float64) + 0.5
    tie = (torch.rand(4, 7, generator=generator) < 0.2).double()
    pairs = Pairs(rewards[chosen] - rewards[rejected], strength, tie)
    weights = newton_serving(pairs, prior, max_steps=50, tolerance=1e-12)
    scores = weights @ rewards.T
    return scores - scores[:, :1]  # a constant added to all scores of a user ranks nothing


def test_with_all_directions_nothing_changes() -> None:
    _, _, features, population = learned()
    reduced = reduce(population, features, R)
    assert reduced.directions.shape == (R, R)
    double = features.double()
    whole = Prior(population.mean, torch.linalg.inv(population.covariance), torch.ones((), dtype=torch.float64))
    expected = adapted(double, whole)
    torch.testing.assert_close(adapted(double @ reduced.directions, reduced.prior(1.0)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", range(1, R + 1))
def test_the_average_user_is_served_as_before(size: int) -> None:
    _, _, features, population = learned()
    reduced = reduce(population, features, size)
    assert reduced.directions.shape == (R, size)
    assert bool((reduced.mean >= 0).all())
    torch.testing.assert_close(reduced.directions @ reduced.mean, population.mean, atol=1e-6, rtol=0)


def test_users_differ_most_in_the_directions_that_are_kept() -> None:
    _, _, features, population = learned()
    double = features.double() - features.double().mean(0)

    def explained(directions: torch.Tensor) -> float:
        return float((double @ directions).square().sum())

    kept = [explained(reduce(population, features, size).directions) for size in range(1, R + 1)]
    assert kept == sorted(kept)
    whole = explained(torch.linalg.cholesky(population.covariance))
    assert kept[-1] == pytest.approx(whole, rel=1e-6)
    # The last of four is the rest of the mean; the first three alone are the best that three can be.
    best = torch.linalg.eigvalsh(double @ population.covariance @ double.T).flip(0)[:3].sum()
    assert explained(reduce(population, features, 4).directions[:, :3]) == pytest.approx(float(best), rel=1e-6)


@pytest.mark.parametrize("inside", [True, False])
def test_a_mean_that_leaves_no_rest_makes_no_empty_base_reward(inside: bool) -> None:
    _, basis, features, population = learned()
    leading = reduce(population, features, 3).directions[:, :2]
    mean = leading @ torch.ones(2, dtype=torch.float64) if inside else torch.zeros(R, dtype=torch.float64)
    population = population._replace(mean=mean)
    reduced = reduce(population, features, 3)
    torch.testing.assert_close(reduced.directions @ reduced.mean, mean, atol=1e-6, rtol=0)
    _, prior = freeze(Learned(basis, None, features, population), 3, 1.0)
    assert float(torch.linalg.cond(prior.precision)) < 1e4


@pytest.mark.parametrize("size", [R, 3, 1])
@pytest.mark.parametrize("strength", [0.5, 1.0, 16.0])
def test_what_a_bundle_stores_adapts_the_same(size: int, strength: float) -> None:
    embeddings, basis, features, population = learned()
    reduced = reduce(population, features, size)
    module, prior = freeze(Learned(basis, None, features, population), size, strength)
    with torch.no_grad():
        stored = module(torch.from_numpy(embeddings)).double()
    assert module.weight.dtype == torch.float32
    assert not module.training
    torch.testing.assert_close(stored.std(0), torch.ones(size, dtype=torch.float64), atol=1e-4, rtol=0)
    expected = adapted(features.double() @ reduced.directions, reduced.prior(strength))
    torch.testing.assert_close(adapted(stored, prior), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [R, 3])
def test_known_texts_have_rewards_of_their_own_and_new_ones_those_of_their_text(size: int) -> None:
    embeddings, basis, features, population = learned()
    generator = torch.Generator().manual_seed(1)
    own = torch.randn(ITEMS, R, generator=generator, dtype=torch.float64)
    rewards = (features.double() + own).float()
    known = torch.arange(0, ITEMS, 2)
    what = Learned(basis, own, rewards, population)
    module, prior = freeze(what, size, 2.0, known=(known, torch.from_numpy(embeddings)[known]))
    by_text, _ = freeze(what, size, 2.0)
    with torch.no_grad():
        stored, plain = (m(torch.from_numpy(embeddings)).double() for m in (module, by_text))
    torch.testing.assert_close(stored[1::2], plain[1::2], atol=1e-6, rtol=0)
    reduced = reduce(population, rewards, size)
    spread = (rewards.double() @ reduced.directions).std(0)
    expected = rewards.double() @ reduced.directions / spread
    torch.testing.assert_close(stored[::2] - stored[:1], (expected[::2] - expected[:1]), atol=1e-4, rtol=0)
    assert prior.w0.shape == (size,)


def test_a_share_holds_back_what_people_differ_by_over_new_texts_alone() -> None:
    embeddings, basis, features, population = learned()
    mean = torch.zeros(R, dtype=torch.float64)
    mean[0] = 1
    what = Learned(basis, None, features, population._replace(mean=mean))
    new = torch.arange(ITEMS) % 2 == 1
    held_back = what.with_new_texts(0.25, new).base_rewards
    torch.testing.assert_close(held_back[~new], features[~new])
    torch.testing.assert_close(held_back[new, 0], features[new, 0])
    torch.testing.assert_close(held_back[new, 1:], features[new, 1:] / 4)
    module, prior = freeze(what, R, 1.0, 0.25)
    with torch.no_grad():
        stored = module(torch.from_numpy(embeddings)).double()
    # Unadapted, nothing changes: the shared utility is the first.
    expected = features[:, 0].double()
    torch.testing.assert_close(stored @ prior.w0 - (stored @ prior.w0)[0], expected - expected[0], atol=1e-4, rtol=0)


def test_being_less_sure_moves_no_weight() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(3, 7, R, generator=generator, dtype=torch.float64)
    pairs = Pairs(z, torch.ones(3, 7, dtype=torch.float64), torch.zeros(3, 7, dtype=torch.float64))
    reduced = Reduced(torch.eye(R, dtype=torch.float64), torch.linspace(-1, 1, R, dtype=torch.float64))
    usual, sure = reduced.prior(2.0), reduced.prior(2.0, 0.1)
    weights = [newton_serving(pairs, prior, max_steps=50, tolerance=1e-12) for prior in (usual, sure)]
    torch.testing.assert_close(*weights, atol=1e-9, rtol=0)
    covariances = [laplace_covariance(weights[0], pairs, prior) for prior in (usual, sure)]
    torch.testing.assert_close(covariances[0] * 0.1, covariances[1])
