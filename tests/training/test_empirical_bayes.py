"""Latent factors: each step makes what users said more likely, and loadings are those that people were drawn with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.inner_loop import Prior, derivatives, newton_serving
from mrm_sdk.core.losses import bradley_terry
from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.empirical_bayes import (
    LEAST_COMPARISONS,
    RESIDUAL_VARIANCE,
    TEXT_PENALTY,
    Factors,
    first_factors,
    learn_factors,
)
from mrm_sdk.training.episodes import Packed, pack
from tests.core.objective import objective
from tests.training.people import embeddings_of, people, rows

R, K = 5, 3


def setting(users: int = 60, **options: object) -> tuple[Packed, Tensor, Tensor]:
    """Users, the features of items, and the utility of the taste around which theirs scatter."""
    data = people(users, dimension=R, noise=1.0, **options)  # type: ignore[arg-type]
    features = torch.from_numpy(embeddings_of(data))
    return pack(data, np.arange(users)), features / R**0.5, features.double().sum(1) / 2


def learn(
    users: Packed, features: Tensor, utility: Tensor, steps: int = 3, start: Factors | None = None, **settings: object
) -> Factors:
    config = TrainingConfig().with_settings(**settings)
    first = 0 if start is None else 1
    return learn_factors(
        users,
        features,
        utility,
        config,
        start=start or first_factors(features, len(users.items), K),
        iterations=range(first, first + steps),
        after_step=lambda step, so_far: None,
    )


def rewards_of(factors: Factors, features: Tensor, utility: Tensor) -> Tensor:
    return torch.cat([utility.unsqueeze(1), features.double() @ factors.text + factors.residual], 1)


def prior_of(factors: Factors) -> Prior:
    size = factors.text.shape[1] + 1
    mean = torch.zeros(size, dtype=torch.float64)
    mean[0] = 1
    precision = torch.eye(size, dtype=torch.float64)
    precision[0, 0] = 1 / factors.variance
    return Prior(mean, precision, torch.ones((), dtype=torch.float64))


def evidence(factors: Factors, users: Packed, features: Tensor, utility: Tensor) -> float:
    """Log of the probability of loadings and of what users said with them, to second order (Laplace)."""
    both = [users.pairs(phase, rewards_of(factors, features, utility)) for phase in (SUPPORT, QUERY)]
    pairs = Pairs(*(torch.cat(fields, 1) for fields in zip(*both, strict=True)))
    prior = prior_of(factors)
    weights = newton_serving(pairs, prior, max_steps=50, tolerance=1e-10)
    _, hessian = derivatives(weights, pairs, prior)
    volume = torch.logdet(prior.precision) - torch.logdet(hessian)
    loadings = TEXT_PENALTY * factors.text.square().sum() + factors.residual.square().sum() / RESIDUAL_VARIANCE
    return float((volume / 2 - objective(weights, pairs, prior)).sum() - loadings / 2)


def loadings(factors: Factors, features: Tensor) -> Tensor:
    """What two items' rewards have in common over users: the same however the factors are turned, [items, items]."""
    own = features.double() @ factors.text + factors.residual
    return own @ own.T


def assert_same(first: Factors, second: Factors, features: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(loadings(first, features), loadings(second, features), atol=tolerance, rtol=0)
    torch.testing.assert_close(first.variance, second.variance, atol=tolerance, rtol=0)


def test_steps_make_what_users_said_more_likely() -> None:
    users, features, utility = setting(pairs=15)
    path = [learn(users, features, utility, 1)]
    for _ in range(10):
        path.append(learn(users, features, utility, 1, path[-1]))
    values = [evidence(factors, users, features, utility) for factors in path]
    assert values[-1] > values[0] + 5
    assert (np.diff(values) > -0.5).all(), np.diff(values)


@pytest.mark.slow
def test_the_loadings_that_people_were_drawn_with_are_found() -> None:
    rng = np.random.default_rng(4)
    root = rng.standard_normal((R, 2))  # people differ in two directions of five
    mean = np.array([0.7, -0.35, 0.0, 0.56, 0.21])
    tastes = mean + rng.standard_normal((400, 2)) @ root.T
    data = people(400, dimension=R, noise=1.0, tastes=tastes, pairs=20, items=80)
    x = torch.from_numpy(embeddings_of(data))
    users, features = pack(data, np.arange(400)), x / R**0.5
    learned = learn(users, features, x.double() @ torch.from_numpy(mean), 30)
    truth = (x.double() @ torch.from_numpy(root)).numpy()
    truth = truth @ truth.T
    found = loadings(learned, features).numpy()
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.95


def test_what_an_item_itself_is_known_for_is_kept_apart_from_its_text() -> None:
    """Two items of one text that people take apart, and an item of too few comparisons."""
    rng = np.random.default_rng(0)
    data = people(80, dimension=R, noise=0.3, pairs=20, items=10)
    features = torch.from_numpy(embeddings_of(data)) / R**0.5
    features[1] = features[0]
    sides = np.where(np.arange(len(data)) // 40 % 2 == 0, 0, 1)  # half of the people prefer the one, half the other
    asked = rng.random(len(data)) < 0.3
    data = replace(data, chosen=np.where(asked, sides, data.chosen), rejected=np.where(asked, 1 - sides, data.rejected))
    scarce = np.zeros(80)
    users = pack(data, np.arange(80))
    users.items[users.items == 9] = 8
    users.items[0, 0, : LEAST_COMPARISONS - 1, 0] = 9
    learned = learn(users, features, torch.zeros(10, dtype=torch.float64), 20)
    assert scarce.sum() == 0
    apart = (learned.residual[0] - learned.residual[1]).norm()
    assert apart > 3 * (learned.residual[2] - learned.residual[3]).norm()
    assert not bool(learned.residual[9].any())
    assert bool(learned.residual[8].any())


def test_order_of_users_and_of_comparisons_does_not_matter() -> None:
    users, features, utility = setting()
    expected = learn(users, features, utility)
    generator = torch.Generator().manual_seed(0)
    shuffled = learn(users.users(torch.randperm(60, generator=generator)), features, utility)
    assert_same(shuffled, expected, features)
    order = torch.randperm(8, generator=generator)
    assert_same(learn(Packed(*(field[:, :, order] for field in users)), features, utility), expected, features)
    swapped = Packed(*(field.flip(1) for field in users))  # both phases are evidence alike
    assert_same(learn(swapped, features, utility), expected, features)


def test_padding_width_and_items_of_nobody_do_not_matter() -> None:
    users, features, utility = setting(20)
    wider = Packed(*(torch.cat([field, torch.zeros_like(field)], 2) for field in users))
    expected = learn(users, features, utility)
    assert_same(learn(wider, features, utility), expected, features)
    # The first factors look at all items, so these are given.
    start = first_factors(features, 20, K)
    more = torch.cat([features, torch.ones(3, R)])
    residual = torch.zeros(len(more), K, dtype=torch.float64)
    longer = learn_factors(
        users,
        more,
        torch.cat([utility, torch.zeros(3, dtype=torch.float64)]),
        TrainingConfig(),
        start=start._replace(residual=residual),
        iterations=range(3),
        after_step=lambda step, so_far: None,
    )
    assert not bool(longer.residual[-3:].any())
    assert_same(longer._replace(residual=longer.residual[:-3]), expected, features)


def test_steps_at_once_or_a_part_at_a_time() -> None:
    users, features, utility = setting()
    whole = learn(users, features, utility, 3)
    seen: list[tuple[int, Factors]] = []
    factors = first_factors(features, 60, K)
    for steps in (range(1), range(1, 3)):
        factors = learn_factors(
            users,
            features,
            utility,
            TrainingConfig(),
            start=factors,
            iterations=steps,
            after_step=lambda *step: seen.append(step),
        )
    assert all(torch.equal(a, b) for a, b in zip(factors, whole, strict=True))
    assert [step for step, _ in seen] == [0, 1, 2]
    assert seen[-1][1] is factors


def test_a_hard_mask_is_a_step_on_the_hard_users_alone() -> None:
    users, features, utility = setting(40, pairs=20)
    start = learn(users, features, utility, 2)
    rewards = rewards_of(start, features, utility)
    support, query = (users.pairs(phase, rewards) for phase in (SUPPORT, QUERY))
    weights = newton_serving(support, prior_of(start), max_steps=50, tolerance=1e-10)
    losses = bradley_terry((query.z @ weights.unsqueeze(-1)).squeeze(-1), query.tie).mean(-1)
    hard = torch.nonzero(losses > torch.quantile(losses, 0.75)).squeeze(-1)
    assert len(hard) == 10
    masked = learn(users, features, utility, 1, start, robust_gamma=0.0, robust_ratio=0.25)
    four = hard.repeat(4)  # the mean of what users count is 1
    assert_same(
        masked, learn(users.users(four), features, utility, 1, start._replace(weights=start.weights[four])), features
    )
    plain = learn(users, features, utility, 1, start)
    assert not torch.allclose(loadings(masked, features), loadings(plain, features), atol=1e-2)
    soft = learn(users, features, utility, 1, start, robust_gamma=0.1)
    assert not torch.allclose(loadings(soft, features), loadings(plain, features), atol=1e-3)


def test_all_users_count_alike_where_gamma_is_infinite_or_huge() -> None:
    users, features, utility = setting(20)
    nearly = learn(users, features, utility, robust_gamma=1e6)
    assert_same(nearly, learn(users, features, utility), features, 1e-3)


@pytest.mark.parametrize("strength", [1e-6, 1.0, 100.0, 1e6])
def test_users_who_never_err_give_finite_factors(strength: float) -> None:
    data = people(20, dimension=R)
    data = rows(replace(data, strength=np.full(len(data), strength)), np.repeat(np.arange(len(data)), 3))
    features = torch.from_numpy(embeddings_of(data))
    learned = learn(pack(data, np.arange(20)), features, features.double().sum(1), 12)
    assert all(bool(torch.isfinite(field).all()) for field in learned)
    assert float(learned.variance) > 0
