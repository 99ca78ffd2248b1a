"""Every figure against a loop that follows its definition word by word."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.posterior import moderated
from mrm_sdk.evaluation.metrics import (
    BINS,
    accuracy,
    brier,
    ece,
    loss,
    margins,
    predicted,
    reliability,
    reverse,
    worst_again,
    worst_share,
)


@pytest.fixture
def query() -> Pairs:
    """Five users of different length, with ties, padding, and pairs of equal items; the last has ties only."""
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(5, 9, 3, generator=generator, dtype=torch.float64)
    strength = (torch.rand(5, 9, generator=generator, dtype=torch.float64) + 0.1).round(decimals=1)
    tie = (torch.rand(5, 9, generator=generator) < 0.2).double()
    strength[0, 4:] = strength[2, 1:] = 0
    tie[2, 0] = 0
    z[1, 2] = 0
    tie[1, 2] = tie[0, 0] = 0
    tie[4] = 1
    return Pairs(z * (strength > 0).unsqueeze(-1), strength, tie)


@pytest.fixture
def weights() -> Tensor:
    return 2 * torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def decided(query: Pairs, weights: Tensor) -> list[list[float]]:
    """Margins of each user's decided comparisons."""
    return [
        [
            sum(float(a * b) for a, b in zip(query.z[u, p], weights[u], strict=True))
            for p in range(query.z.shape[1])
            if query.strength[u, p] > 0 and query.tie[u, p] == 0
        ]
        for u in range(len(query.z))
    ]


def probability(margin: float) -> float:
    return 1 / (1 + math.exp(-margin))


def right(margin: float) -> float:
    return 1.0 if margin > 0 else 0.5 if margin == 0 else 0.0


def test_accuracy_and_brier(query: Pairs, weights: Tensor) -> None:
    for some in weights:
        each = decided(query, some)[:4]
        assert accuracy(query, margins(query, some))[:4].tolist() == pytest.approx(
            [sum(map(right, m)) / len(m) for m in each]
        )
        expected = [sum((1 - probability(x)) ** 2 for x in m) / len(m) for m in each]
        assert brier(query, margins(query, some))[:4].tolist() == pytest.approx(expected)
    assert accuracy(query, margins(query, weights[0]))[4].isnan()
    assert brier(query, margins(query, weights[0] * 0))[:4].tolist() == [0.25] * 4


def test_loss_counts_ties_and_strengths(query: Pairs, weights: Tensor) -> None:
    expected = []
    for u in range(5):
        total = count = 0.0
        for p in range(9):
            m = float(query.z[u, p] @ weights[0, u])
            forth, back = -math.log(probability(m)), -math.log(probability(-m))
            total += float(query.strength[u, p]) * ((forth + back) / 2 if query.tie[u, p] else forth)
            count += float(query.strength[u, p])
        expected.append(total / count)
    assert loss(query, margins(query, weights[0])).tolist() == pytest.approx(expected)


def test_calibration_weighs_users_alike(query: Pairs, weights: Tensor) -> None:
    for some in weights:
        bins = [[0.0, 0.0, 0.0] for _ in range(BINS)]
        for each in decided(query, some):
            for m in each:
                confidence = max(probability(m), 1 - probability(m))
                place = min(BINS - 1, int((confidence - 0.5) * 30))
                for i, value in enumerate((1.0, confidence, right(m))):
                    bins[place][i] += value / len(each)
        sums = reliability(query, margins(query, some))
        assert sums.T.flatten().tolist() == pytest.approx([value for entry in bins for value in entry])
        # Four users have something decided; each counts 1.
        assert float(sums[0].sum()) == pytest.approx(4)
        assert float(sums[2].sum() / 4) == pytest.approx(float(accuracy(query, margins(query, some))[:4].mean()))
        assert ece(sums) == pytest.approx(sum(abs(c - r) for _, c, r in bins) / 4)


def test_calibration_does_not_care_which_response_comes_first(query: Pairs, weights: Tensor) -> None:
    """Naming the other response first turns p into 1 − p, and the outcome with it: nothing changes."""
    margin = torch.tensor([[[2.0], [-2.0]]])
    sums = reliability(Pairs(margin, torch.ones(1, 2), torch.zeros(1, 2)), margin.squeeze(-1))
    place = int((probability(2) - 0.5) * 30)
    assert sums[0].nonzero().tolist() == [[place]]
    assert sums[:, place].tolist() == pytest.approx([1, probability(2), 0.5])
    certain = Pairs(torch.tensor([[[1e9]]]), torch.ones(1, 1), torch.zeros(1, 1))
    assert ece(reliability(certain, certain.z.squeeze(-1))) == 0.0
    assert ece(reliability(certain, -certain.z.squeeze(-1))) == 1.0


def test_several_weights_at_once(query: Pairs, weights: Tensor) -> None:
    for figure in (accuracy, brier, loss, reliability):
        together = figure(query, margins(query, weights))
        single = torch.stack([figure(query, margins(query, w)) for w in weights])
        assert torch.allclose(together, single, equal_nan=True, atol=1e-12)


def test_reversing_leaves_ties_alone(query: Pairs) -> None:
    back = reverse(query)
    ties = query.tie == 1
    assert bool(ties.any())
    assert torch.equal(back.z[ties], query.z[ties])
    assert torch.equal(back.z[~ties], -query.z[~ties])
    assert torch.equal(back.strength, query.strength)
    assert torch.equal(back.tie, query.tie)
    assert all(torch.equal(a, b) for a, b in zip(reverse(back), query, strict=True))


@pytest.mark.parametrize(("share", "expected"), [(0.1, 0.5), (0.2, 1.5), (0.5, 4.5), (1.0, 9.5)])
def test_worst_share(share: float, expected: float) -> None:
    shuffled = torch.arange(20.0)[torch.randperm(20, generator=torch.Generator().manual_seed(0))]
    assert worst_share(shuffled, share) == expected
    assert worst_share(torch.tensor([3.0]), share) == 3.0


def test_unsure_weights_give_cautious_probabilities(query: Pairs, weights: Tensor) -> None:
    root = torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    covariance = root @ root.mT
    margin = margins(query, weights[0])
    cautious = predicted(query, margin, covariance)
    for user, pair in ((0, 0), (3, 8)):
        z = query.z[user, pair]
        expected = moderated(margin[user, pair], z @ covariance[user] @ z)
        assert float(cautious[user, pair]) == pytest.approx(float(expected))
    assert bool((cautious.abs() <= margin.abs()).all())
    assert torch.equal(predicted(query, margin, covariance * 0), margin)


def test_part_of_a_low_score_is_bad_luck() -> None:
    """Of users who are all alike all of it is; of users with very many questions nothing."""
    generator = torch.Generator().manual_seed(0)
    asked = torch.full((4000,), 60.0)
    alike = torch.binomial(asked, torch.full((4000,), 0.7), generator=generator) / asked
    worst = worst_share(alike, 0.1)
    assert worst < 0.61
    assert worst_again(alike, asked, worst) == pytest.approx(0.7, abs=0.01)
    ability = 0.7 + 0.08 * torch.randn(4000, generator=generator).clamp(-3, 3)
    answers, others = (torch.binomial(asked, ability, generator=generator) / asked for _ in range(2))
    expected = float(others[answers.argsort()[:400]].mean())
    assert worst_again(answers, asked, worst_share(answers, 0.1)) == pytest.approx(expected, abs=0.01)
    assert worst_again(ability, asked * 1e9, 0.5) == pytest.approx(0.5, abs=1e-6)
    assert worst_again(torch.full((9,), 0.6), torch.full((9,), 5.0), 0.6) == pytest.approx(0.6)
