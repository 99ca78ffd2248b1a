"""Utilities that all users share: the optimum of a convex likelihood, from counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mrm_sdk.training.episodes import Packed, pack
from mrm_sdk.training.utilities import (
    RESIDUAL_VARIANCE,
    Judgements,
    fit_residuals,
    fit_text_utility,
    judgements_of,
    mean_loss,
)
from tests.training.people import embeddings_of, people

R = 4


def setting(ties: bool = True) -> tuple[Packed, torch.Tensor]:
    data = people(30, dimension=R, noise=1.0, items=20)
    users = pack(data, np.arange(30))
    generator = torch.Generator().manual_seed(0)
    tie = (torch.rand(users.tie.shape, generator=generator) < 0.2).double() * ties
    strength = users.strength * (torch.rand(users.tie.shape, generator=generator) + 0.5)
    return users._replace(tie=tie, strength=strength), torch.from_numpy(embeddings_of(data)).double()


def loss(utility: torch.Tensor, users: Packed) -> torch.Tensor:
    """Written out over comparisons, with ties."""
    chosen, rejected = utility[users.items].unbind(-1)
    margin = chosen - rejected
    return (users.strength * (torch.nn.functional.softplus(-margin) + users.tie * margin / 2)).sum()


@pytest.mark.parametrize("penalty", [0.1, 10.0, 1e4])
def test_the_text_utility_is_where_the_penalised_loss_is_flat(penalty: float) -> None:
    users, features = setting()
    weight = fit_text_utility(features, judgements_of(users), penalty).requires_grad_()
    total = loss(features @ weight, users) + penalty / 2 * weight.square().sum()
    (slope,) = torch.autograd.grad(total, weight)
    assert float(slope.abs().max()) < 1e-6
    again = fit_text_utility(features, judgements_of(users), penalty, torch.full((R,), 3.0, dtype=torch.float64))
    torch.testing.assert_close(again, weight.detach(), atol=1e-6, rtol=0)


def test_residuals_are_where_their_penalised_loss_is_flat() -> None:
    users, features = setting()
    utility = features @ fit_text_utility(features, judgements_of(users), 10.0)
    residual = fit_residuals(utility, judgements_of(users)).requires_grad_()
    total = loss(utility + residual, users) + residual.square().sum() / (2 * RESIDUAL_VARIANCE)
    (slope,) = torch.autograd.grad(total, residual)
    assert float(slope.abs().max()) < 0.1
    assert float(residual.detach().abs().max()) > 0.1


def test_an_item_that_was_never_judged_has_no_residual() -> None:
    users, features = setting()
    more = torch.cat([features, torch.ones(2, R)])
    judged = judgements_of(users)
    weight = fit_text_utility(more, judged, 10.0)
    torch.testing.assert_close(weight, fit_text_utility(features, judged, 10.0))
    assert not bool(fit_residuals(more @ weight, judged)[-2:].any())


def test_counts_are_those_of_the_comparisons() -> None:
    items = torch.tensor([[[[0, 1], [0, 1]], [[1, 0], [2, 1]]]])
    users = Packed(items, torch.tensor([[[1.0, 2.0], [4.0, 0.0]]]), torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]))
    judged = judgements_of(users)
    counts = {(int(c), int(r)): float(w) for c, r, w in zip(*judged, strict=True)}
    assert counts == {(0, 1): 1 + 1, (1, 0): 1 + 4}
    margin = torch.tensor([0.5, -0.5, 0.0], dtype=torch.float64)
    expected = (2 * np.log1p(np.exp(-1.0)) + 5 * np.log1p(np.exp(1.0))) / 7
    assert mean_loss(margin, judged) == pytest.approx(expected)


def test_nothing_was_judged() -> None:
    users, features = setting()
    judged = judgements_of(users._replace(strength=users.strength * 0))
    assert len(judged.weight) == 0
    assert not bool(fit_text_utility(features, judged, 1.0).any())
    assert not bool(fit_residuals(features[:, 0] * 0, judged).any())
    assert np.isnan(mean_loss(features[:, 0], judged))


def test_answers_that_never_lose_stay_finite() -> None:
    always = Judgements(torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([1e6, 1e6], dtype=torch.float64))
    weight = fit_text_utility(torch.eye(3, dtype=torch.float64), always, 1e-3)
    assert bool(torch.isfinite(weight).all())
    assert weight[0] > weight[1] > weight[2]
    assert bool(torch.isfinite(fit_residuals(torch.zeros(3, dtype=torch.float64), always)).all())
