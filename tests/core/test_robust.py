"""Users' weights under the robust objective; the objective itself is held by the released trajectory."""

from __future__ import annotations

import math

import pytest
import torch

from mrm_sdk.core.robust import robust_objective, robust_weights

LOSSES = torch.tensor([0.1, 0.9, 0.5, 0.7, 0.3])


def test_weights_lean_on_hard_users_and_have_mean_one() -> None:
    weights = robust_weights(LOSSES, ratio=0.4, gamma=0.1)
    assert weights.argsort().tolist() == LOSSES.argsort().tolist()
    assert float(weights.mean()) == pytest.approx(1)
    threshold = torch.quantile(LOSSES, 0.6)
    share = torch.sigmoid((LOSSES - threshold) / 0.1)
    torch.testing.assert_close(weights, share / share.mean())
    assert float((share * LOSSES).sum()) == pytest.approx(float(robust_objective(LOSSES, ratio=0.4, gamma=0.1)))


def test_an_infinite_gamma_counts_all_users_alike() -> None:
    assert robust_weights(LOSSES, ratio=0.4, gamma=math.inf).tolist() == [1] * 5


def test_a_gamma_of_zero_is_a_hard_mask() -> None:
    assert robust_weights(LOSSES, ratio=0.5, gamma=0.0).tolist() == [0, 2.5, 0, 2.5, 0]


def test_no_user_is_harder_than_the_others() -> None:
    for gamma in (0.0, 0.5):
        assert robust_weights(torch.full((4,), 0.3), ratio=0.5, gamma=gamma).tolist() == [1] * 4
