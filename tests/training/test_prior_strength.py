"""What held-out users choose: few base rewards, a prior no weaker than helps, and nothing where adapting hurts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mrm_sdk.core.inner_loop import Prior, newton_serving
from mrm_sdk.core.losses import bradley_terry
from mrm_sdk.core.posterior import laplace_covariance
from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.evaluation.metrics import margins, predicted
from mrm_sdk.training.basis import Basis
from mrm_sdk.training.distribution import WeightDistribution
from mrm_sdk.training.episodes import Packed, pack
from mrm_sdk.training.outer_loops import Learned
from mrm_sdk.training.prior_strength import (
    SHARES,
    SHOTS,
    SPREADS,
    STRENGTHS,
    Choice,
    Trial,
    Trials,
    choose,
    choose_share,
    choose_spread,
    run_trials,
)
from mrm_sdk.training.reduction import reduce
from tests.training.people import embeddings_of, people

R, NEVER = 5, STRENGTHS[-1]


def trials(users: int, accuracy: dict[tuple[int, float], np.ndarray], loss: dict[tuple[int, float], float]) -> Trials:
    """Three sizes; users who are not listed have an accuracy of 0.5 and a loss of 1."""
    return {
        (size, strength): Trial(
            torch.full((len(SPREADS), users), loss.get((size, strength), 1.0)),
            torch.from_numpy(accuracy.get((size, strength), np.full(users, 0.5))).float(),
        )
        for size in (4, 8, 16)
        for strength in STRENGTHS
    }


def around(mean: float, seed: int, users: int = 100) -> np.ndarray:
    scatter = np.random.default_rng(seed).standard_normal(users)
    return mean + 0.1 * (scatter - scatter.mean()) / scatter.std()


def test_the_fewest_base_rewards_as_good_as_the_best_are_chosen() -> None:
    base = around(0.7, 0)
    # One standard error of the differences is 0.01.
    accuracy = {(4, 1.0): base, (8, 1.0): base + around(0.045, 1), (16, 1.0): base + around(0.05, 2)}
    assert choose([trials(100, accuracy, {(8, 1.0): 0.6, (16, 1.0): 0.5})]).base_functions == 8
    accuracy[8, 1.0] = base + around(0.02, 1)
    choice = choose([trials(100, accuracy, {})])
    assert choice.base_functions == 16
    assert choice.gain == pytest.approx(0.25, abs=1e-6)
    assert (choice.before, choice.after) == (pytest.approx(0.5), pytest.approx(0.75))


def test_among_strengths_as_accurate_the_loss_decides() -> None:
    accuracy = {(8, strength): around(0.7, 0) for strength in (0.5, 1.0, 4.0)}
    assert choose([trials(100, accuracy, {(8, 4.0): 0.4, (8, 0.5): 0.6, (8, 16.0): 0.1})]).strength == 4.0


def test_where_adapting_hurts_unjudged_is_adapted() -> None:
    worse = {(size, s): np.full(50, 0.4) for size in (4, 8, 16) for s in STRENGTHS[:-1]}
    choice = choose([trials(50, worse, dict.fromkeys(worse, 0.2))])
    assert (choice.strength, choice.gain) == (NEVER, 0)
    # Also where the loss prefers a strength whose accuracy is behind, though not clearly.
    little = {key: around(0.499, 3) for key in worse}
    choice = choose([trials(100, little, dict.fromkeys(worse, 0.2))])
    assert choice.strength == NEVER
    assert choice.gain < 0
    assert choice.after == choice.before == 0.5  # of the bundle that is made, not of the trial that lost


def test_the_curve_is_complete_and_folds_count_by_their_users() -> None:
    folds = [trials(10, {}, {(4, 1.0): 0.2}), trials(30, {}, {(4, 1.0): 0.6})]
    curve = choose(folds).curve
    assert curve.keys() == {"4", "8", "16"}
    assert all(list(by_strength) == [f"{s:g}" for s in STRENGTHS] for by_strength in curve.values())
    assert curve["4"]["1"] == pytest.approx(0.5)


def test_users_without_a_decided_comparison_have_no_say() -> None:
    accuracy = {(8, 1.0): np.where(np.arange(100) < 50, np.nan, 0.8)}
    accuracy |= {key: np.where(np.arange(100) < 50, np.nan, 0.5) for key in trials(1, {}, {}) if key != (8, 1.0)}
    choice = choose([trials(100, accuracy, {})])
    assert (choice.base_functions, choice.strength) == (8, 1.0)
    assert (choice.before, choice.after) == (pytest.approx(0.5), pytest.approx(0.8))
    unjudged = dict.fromkeys(accuracy, np.full(100, np.nan))
    assert np.isfinite(choose([trials(100, unjudged, {})]).gain)


def setting(users: int = 12, pairs: int = 8) -> tuple[Learned, Packed, torch.Tensor]:
    data = people(users, dimension=R, pairs=pairs, noise=1.0)
    packed = pack(data, np.arange(users))
    mean = torch.full((R,), 0.5, dtype=torch.float64)
    features = torch.from_numpy(embeddings_of(data))
    basis = Basis(torch.zeros(R, dtype=torch.float64), torch.eye(R, dtype=torch.float64))
    population = WeightDistribution(mean, torch.eye(R, dtype=torch.float64))
    return Learned(basis, None, features, population), packed, features


@pytest.mark.parametrize("size", [R, 3])
def test_at_the_last_strength_all_users_stays_where_the_average_user_is(size: int) -> None:
    learned, users, features = setting()
    got = run_trials(learned, users, [size])[size, NEVER]
    margin = users.pairs(QUERY, features.double()).z @ learned.distribution.mean
    torch.testing.assert_close(got.accuracy.double(), (margin > 0).double().mean(1), atol=1e-6, rtol=0)
    loss = torch.nn.functional.softplus(-margin).mean(1)
    torch.testing.assert_close(got.loss.double(), loss.expand(len(SPREADS), -1), atol=1e-3, rtol=0)


def test_users_are_judged_as_they_would_be_served() -> None:
    learned, users, features = setting()
    got = run_trials(learned, users, [3])
    reduced = reduce(learned.distribution, features, 3)
    rewards = features.double() @ reduced.directions
    support, query = (users.pairs(phase, rewards) for phase in (SUPPORT, QUERY))
    for strength in (0.5, 4.0):
        prior: Prior = reduced.prior(strength)
        right, losses = [], []
        for shots in {min(n, 8) for n in SHOTS}:
            weights = newton_serving(support.first(shots), prior, max_steps=50, tolerance=1e-12)
            margin = margins(query, weights)
            right.append((margin > 0).double().mean(1))
            unsure = laplace_covariance(weights, support.first(shots), prior)
            cautious = [bradley_terry(predicted(query, margin, s * unsure), query.tie).mean(1) for s in SPREADS]
            losses.append(torch.stack(cautious))
        expected = torch.stack(right).mean(0)
        torch.testing.assert_close(got[3, strength].accuracy.double(), expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(got[3, strength].loss.double(), torch.stack(losses).mean(0), atol=1e-4, rtol=0)


def test_every_choice_is_tried_on_all_users() -> None:
    learned, users, _ = setting(150, pairs=3)  # more than are worked on at once
    got = run_trials(learned, users, [2, R])
    assert got.keys() == {(size, strength) for size in (2, R) for strength in STRENGTHS}
    for judged in got.values():
        assert (judged.loss.shape, judged.accuracy.shape) == ((len(SPREADS), 150), (150,))
        assert bool(torch.isfinite(judged.loss).all())
    alone = run_trials(learned, users.users(torch.tensor([140])), [2])
    torch.testing.assert_close(alone[2, 1.0].loss, got[2, 1.0].loss[:, 140:141], atol=1e-5, rtol=0)


def test_users_without_support_are_judged_unadapted() -> None:
    learned, users, _ = setting()
    strength = users.strength.clone()
    strength[:, SUPPORT] = 0
    got = run_trials(learned, users._replace(strength=strength), [R])
    for judged in got.values():
        torch.testing.assert_close(judged.accuracy, got[R, NEVER].accuracy)


def shares(accuracy: dict[float, float], loss: dict[float, float]) -> list[dict[float, Trials]]:
    return [
        {s: {(4, 1.0): Trial(torch.full((len(SPREADS), 20), loss[s]), torch.full((20,), accuracy[s]))} for s in SHARES},
    ]


@pytest.mark.parametrize(
    ("accuracy", "loss", "expected"),
    [
        ({0.0: 0.6, 0.5: 0.62, 1.0: 0.64}, {0.0: 0.66, 0.5: 0.65, 1.0: 0.64}, (1.0, (0.6, 0.64))),
        ({0.0: 0.6, 0.5: 0.62, 1.0: 0.64}, {0.0: 0.66, 0.5: 0.64, 1.0: 0.65}, (0.5, (0.6, 0.62))),
        # A loss that falls does not make up for accuracy that is lost: no harm.
        ({0.0: 0.6, 0.5: 0.59, 1.0: 0.5}, {0.0: 0.66, 0.5: 0.64, 1.0: 0.65}, (0.0, (0.6, 0.6))),
        ({0.0: 0.6, 0.5: 0.62, 1.0: 0.64}, {0.0: 0.63, 0.5: 0.64, 1.0: 0.65}, (0.0, (0.6, 0.6))),
    ],
)
def test_people_differ_over_new_texts_as_far_as_it_helps(
    accuracy: dict[float, float], loss: dict[float, float], expected: tuple[float, tuple[float, float]]
) -> None:
    choice = Choice(4, 1.0, 0.0, 0.6, 0.6, {})
    share, judged = choose_share(shares(accuracy, loss), choice)
    assert share == expected[0]
    assert judged == pytest.approx(expected[1])


def test_where_no_text_was_held_back_new_ones_count_in_full() -> None:
    assert choose_share([], Choice(4, 1.0, 0.0, 0.6, 0.6, {})) == (1.0, None)


def test_how_sure_to_be_is_chosen_on_known_and_new_texts_alike() -> None:
    def trial(users: int, *losses: float) -> Trial:
        return Trial(torch.tensor(losses).unsqueeze(1).expand(-1, users), torch.ones(users))

    known = [trial(30, 0.5, 0.4, 0.45, 0.6), trial(10, 0.5, 0.4, 0.45, 0.6)]
    chosen, curve = choose_spread(known, [])
    assert chosen == SPREADS[1]
    assert curve == pytest.approx({"0.01": 0.5, "0.1": 0.4, "0.3": 0.45, "1": 0.6})
    assert choose_spread(known, [trial(2, 0.9, 0.8, 0.6, 0.55)])[0] == SPREADS[2]
