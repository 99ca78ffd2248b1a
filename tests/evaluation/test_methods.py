"""Baselines behind one interface: they learn, adapt to the support alone, and mind neither its order nor padding."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from mrm_sdk.core.batching import Pairs
from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.errors import EmbeddingError, InvalidInputError, TrainingError
from mrm_sdk.evaluation.method import Fit, FittedMethod
from mrm_sdk.evaluation.methods import METHODS
from mrm_sdk.evaluation.methods.lore import learn
from mrm_sdk.evaluation.methods.per_user import regress
from mrm_sdk.evaluation.methods.population import population_reward
from mrm_sdk.evaluation.methods.preparation import prepare_users
from mrm_sdk.evaluation.metrics import accuracy, margins
from mrm_sdk.schemas.items import Item
from mrm_sdk.training.config import MamlConfig, TrainingConfig
from mrm_sdk.training.episodes import pack

USERS, TRAINED, ITEMS, DIMENSION, PAIRS = 100, 60, 40, 6, 16
NAMES = sorted(METHODS)
# The published inner loop takes one small step, and population none.
PERSONAL = ["in_context", "lore", "newton", "per_user"]


def quiet(stage: str, done: int, total: int) -> None:
    assert 0 <= done <= total, stage


@cache
def people() -> tuple[Dataset, Tensor]:
    """Users with tastes linear in embeddings: something in common, and more of their own in three directions."""
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((ITEMS, DIMENSION))
    own = rng.standard_normal((USERS, 3)) @ rng.standard_normal((3, DIMENSION))
    tastes = np.repeat(1.2 * rng.standard_normal((1, DIMENSION)) + own, 2 * PAIRS, axis=0)
    first = rng.integers(0, ITEMS, len(tastes))
    second = (first + rng.integers(1, ITEMS, len(tastes))) % ITEMS
    wins = ((embeddings[first] - embeddings[second]) * tastes).sum(1) > 0
    n = len(tastes)
    data = Dataset(
        items=[Item(None, f"text {i}", None) for i in range(ITEMS)],
        user_ids=[f"u{i}" for i in range(USERS)],
        user=np.repeat(np.arange(USERS), 2 * PAIRS),
        chosen=np.where(wins, first, second),
        rejected=np.where(wins, second, first),
        tie=np.zeros(n, bool),
        strength=np.ones(n),
        phase=np.arange(n) // PAIRS % 2,
        event_ids=[str(i) for i in range(n)],
        created_at=[None] * n,
        sha256="",
    )
    return data, torch.from_numpy(embeddings).float()


def shortened(config: TrainingConfig) -> TrainingConfig:
    if isinstance(config.outer, MamlConfig):
        return config.with_settings(steps=10, epochs=None)
    return config


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what does not depend on how well a method learned."""
    monkeypatch.setattr("mrm_sdk.evaluation.methods.in_context.STEPS", 25)
    monkeypatch.setattr("mrm_sdk.evaluation.methods.lore.STEPS", 10)
    monkeypatch.setattr("mrm_sdk.evaluation.methods.lore.ALPHAS", (1e-2,))
    monkeypatch.setattr("mrm_sdk.evaluation.methods.lore.ADAPTATION_STEPS", (5,))
    preset = TrainingConfig.preset
    short = staticmethod(lambda name, *, seed: shortened(preset(name, seed=seed)))
    monkeypatch.setattr(TrainingConfig, "preset", short)
    monkeypatch.setattr("mrm_sdk.evaluation.methods.per_user.CS", (1.0,))


def fit(name: str, data: Dataset, embeddings: Tensor, users: int = TRAINED, seed: int = 0) -> FittedMethod:
    return METHODS[name].fit(data, np.arange(users), embeddings, seed=seed, progress=quiet)


@cache
def fitted(name: str) -> FittedMethod:
    return fit(name, *people())


def support_of(method: FittedMethod, shots: int = PAIRS) -> Pairs:
    return pack(people()[0], np.arange(TRAINED, USERS)).pairs(SUPPORT, method.features).first(shots)


def judged(method: FittedMethod, shots: int) -> float:
    """Mean accuracy of the users who were not trained on."""
    query = pack(people()[0], np.arange(TRAINED, USERS)).pairs(QUERY, method.features)
    return float(accuracy(query, margins(query, method.adapt(support_of(method, shots)))).mean())


def test_the_registry_names_fits_and_says_what_they_are() -> None:
    assert set(NAMES) == {"population", "lore", "per_user", "in_context", "paper", "newton"}
    for method in METHODS.values():
        fit: Fit = method.fit
        assert callable(fit)
        assert method.description
        assert "\n" not in method.description


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_shapes_of_the_interface(name: str) -> None:
    method = fitted(name)
    assert method.features.dtype == torch.float64
    assert len(method.features) == ITEMS
    for shots in (0, 1, PAIRS):
        weights = method.adapt(support_of(method, shots))
        assert weights.dtype == torch.float64
        assert weights.shape == (USERS - TRAINED, method.features.shape[1])
        assert not weights.requires_grad
        assert bool(torch.isfinite(weights).all())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "per_user"])
def test_what_users_share_is_learned(name: str) -> None:
    assert judged(fitted(name), 0) > 0.57


@pytest.mark.slow
@pytest.mark.parametrize("name", PERSONAL)
def test_support_makes_it_better_than_one_reward_for_all(name: str) -> None:
    population = judged(fitted("population"), PAIRS)
    assert judged(fitted(name), PAIRS) > population + 0.05


@pytest.mark.parametrize("name", NAMES)
def test_without_support_all_users_are_alike(name: str) -> None:
    method = fitted(name)
    nothing = method.adapt(support_of(method, 0))
    full = support_of(method)
    padded = method.adapt(full._replace(strength=torch.zeros_like(full.strength)))
    torch.testing.assert_close(nothing, nothing[:1].expand_as(nothing), rtol=0, atol=1e-12)
    torch.testing.assert_close(padded, nothing, rtol=0, atol=1e-12)


def test_without_support_one_reward_for_all_is_what_is_left() -> None:
    reader, lonely = fitted("in_context"), fitted("per_user")
    alone = reader.adapt(support_of(reader, 0))[0]
    data, embeddings = people()
    train, _ = prepare_users(data, np.arange(TRAINED), embeddings, seed=0).split()
    rewards = torch.stack([reader.features @ alone, train.embeddings @ population_reward(train, quiet)])
    assert float(torch.corrcoef(rewards)[0, 1]) > 0.9
    assert not bool(lonely.adapt(support_of(lonely, 0)).any())


@pytest.mark.parametrize("name", NAMES)
def test_order_and_padding_do_not_matter(name: str) -> None:
    method = fitted(name)
    z, strength, tie = support_of(method, 9)
    tie = tie.clone()
    tie[:, 2] = 1
    expected = method.adapt(Pairs(z, strength, tie))
    order = torch.tensor([8, 3, 0, 1, 5, 4, 2, 7, 6])
    shuffled = Pairs(z[:, order], strength[:, order], tie[:, order])
    torch.testing.assert_close(method.adapt(shuffled), expected, rtol=1e-5, atol=1e-6)
    junk = Pairs(torch.randn(len(z), 4, z.shape[-1], dtype=z.dtype), torch.zeros(len(z), 4), torch.ones(len(z), 4))
    padded = Pairs(*(torch.cat([b.to(a), a], 1) for a, b in zip((z, strength, tie), junk, strict=True)))
    torch.testing.assert_close(method.adapt(padded), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_strength_two_is_the_same_comparison_twice(name: str) -> None:
    method = fitted(name)
    support = support_of(method, 5)
    strength = support.strength.clone()
    strength[:, 1] = 2
    index = torch.tensor([0, 1, 1, 2, 3, 4])
    twice = Pairs(*(field[:, index] for field in support))
    heavy = method.adapt(support._replace(strength=strength))
    torch.testing.assert_close(heavy, method.adapt(twice), rtol=1e-5, atol=1e-6)
    if name in PERSONAL:
        assert float((heavy - method.adapt(support)).abs().max()) > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_a_tie_is_half_of_each_direction(name: str) -> None:
    method = fitted(name)
    support = support_of(method, 4)
    tie = support.tie.clone()
    tie[:, 0] = 1
    z = torch.cat([support.z, -support.z[:, :1]], 1)
    strength = torch.cat([support.strength, support.strength[:, :1] / 2], 1)
    strength[:, 0] /= 2
    both = Pairs(z, strength, torch.zeros_like(strength))
    torch.testing.assert_close(method.adapt(support._replace(tie=tie)), method.adapt(both), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", NAMES)
def test_a_seed_repeats_and_others_are_not_looked_at(name: str) -> None:
    data, embeddings = people()
    others = data.user >= TRAINED
    changed = replace(
        data,
        chosen=np.where(others, data.rejected, data.chosen),
        rejected=np.where(others, data.chosen, data.rejected),
        strength=np.where(others, 7.0, data.strength),
    )
    first, second = fit(name, data, embeddings, seed=3), fit(name, changed, embeddings, seed=3)
    assert torch.equal(first.features, second.features)
    assert torch.equal(first.adapt(support_of(first)), second.adapt(support_of(second)))


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", NAMES)
def test_odd_users_give_finite_results(name: str) -> None:
    """A giant, one who contradicts himself, one who only ties, extreme strengths, one phase missing, equal items."""
    data, embeddings = people()
    user, chosen, rejected = data.user.copy(), data.chosen.copy(), data.rejected.copy()
    user[data.user >= 40] = 0
    tie, strength = data.user == 2, np.where(data.user == 3, 1e6, data.strength)
    mine = np.flatnonzero(data.user == 1)
    chosen[mine[::2]], rejected[mine[::2]] = 4, 5
    chosen[mine[1::2]], rejected[mine[1::2]] = 5, 4
    phase = np.where(data.user == 5, QUERY, np.where(data.user == 6, SUPPORT, data.phase))
    odd = replace(data, user=user, chosen=chosen, rejected=rejected, tie=tie, strength=strength, phase=phase)
    embeddings = embeddings.clone()
    embeddings[10:20] = embeddings[10]
    method = fit(name, odd, embeddings, users=40)
    weights = method.adapt(pack(odd, np.arange(40)).pairs(SUPPORT, method.features))
    assert bool(torch.isfinite(method.features).all())
    assert bool(torch.isfinite(weights).all())


@pytest.mark.parametrize("name", ["population", "lore", "per_user", "in_context"])
def test_bad_input_is_told(name: str) -> None:
    data, embeddings = people()
    train = METHODS[name].fit
    with pytest.raises(TrainingError, match="same embedding"):
        fit(name, data, torch.full_like(embeddings, 0.3))
    with pytest.raises(EmbeddingError, match="40 items"):
        fit(name, data, embeddings[:-1])
    with pytest.raises(EmbeddingError, match="NaN"):
        fit(name, data, embeddings * torch.nan)
    with pytest.raises(TrainingError, match="at least 2 users"):
        fit(name, data, embeddings, users=1)
    for users in ([0, 0, 1], [0, 1, USERS], [0, 1, -1]):
        with pytest.raises(InvalidInputError, match="distinct"):
            train(data, np.array(users), embeddings, seed=0, progress=quiet)


@pytest.mark.parametrize("c", [0.1, 10.0])
def test_per_user_is_scikit_learns_regression_without_the_detour(c: float) -> None:
    from sklearn.linear_model import LogisticRegression

    generator = torch.Generator().manual_seed(0)
    z = torch.randn(3, 7, 20, generator=generator, dtype=torch.float64)  # fewer rows than columns, as with embeddings
    strength = torch.rand(3, 7, generator=generator, dtype=torch.float64) + 0.5
    got = regress(Pairs(z, strength, torch.zeros(3, 7)), c)
    for user in range(3):
        sign = np.array([1, -1, 1, 1, -1, 1, -1])
        direct = LogisticRegression(C=c, fit_intercept=False, tol=1e-10, max_iter=10_000)
        direct.fit(z[user].numpy() * sign[:, None], sign, strength[user].numpy())
        np.testing.assert_allclose(got[user], direct.coef_[0], atol=1e-6)


def test_population_is_the_minimum_of_its_penalised_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import LogisticRegression

    monkeypatch.setattr("mrm_sdk.evaluation.methods.population.PENALTIES", (5.0,))
    data, embeddings = people()
    tied = replace(data, tie=data.user % 7 == 0, strength=1.0 + data.user % 3)
    prepared = prepare_users(tied, np.arange(TRAINED), embeddings, seed=0)
    mine = tied.user < TRAINED
    z = (prepared.embeddings[tied.chosen] - prepared.embeddings[tied.rejected]).numpy()[mine]
    strength, tie = tied.strength[mine], tied.tie[mine]
    direct = LogisticRegression(C=1 / 5.0, fit_intercept=False, tol=1e-10, max_iter=10_000)
    direct.fit(
        np.concatenate([z, z]),
        np.repeat([1, 0], len(z)),
        np.concatenate([strength * (1 - tie / 2), strength * tie / 2]),
    )
    np.testing.assert_allclose(population_reward(prepared, quiet), direct.coef_[0], atol=1e-3)


@pytest.mark.slow
def test_lore_weights_lie_on_the_simplex() -> None:
    data, embeddings = people()
    prepared = prepare_users(data, np.arange(TRAINED), embeddings, seed=0)
    basis = learn(prepared, torch.zeros(DIMENSION, dtype=torch.float64), alpha=1e-3, seed=0)
    adapted = fitted("lore").adapt(support_of(fitted("lore")))
    for weights in (basis.weights, adapted):
        assert bool((weights >= 0).all())
        torch.testing.assert_close(weights.sum(1), torch.ones(len(weights), dtype=torch.float64))
    new = basis.fitted(prepared.embeddings, 5)
    torch.testing.assert_close(new.adapt(support_of(new, 0))[0], basis.weights.mean(0))
