"""The likelihood, the robust objective and padding."""

from __future__ import annotations

import math

import pytest
import torch

from mrm_sdk.core.batching import Pairs, pad
from mrm_sdk.core.losses import bradley_terry, weighted_mean
from mrm_sdk.core.robust import robust_objective


def test_a_comparison_costs_minus_log_of_its_probability() -> None:
    margin = torch.tensor([-3.0, 0.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(bradley_terry(margin, torch.zeros(3)), -torch.log(torch.sigmoid(margin)))


def test_a_tie_is_half_of_each_direction() -> None:
    margin = torch.tensor([-3.0, 0.0, 2.0], dtype=torch.float64)
    both = (bradley_terry(margin, torch.zeros(3)) + bradley_terry(-margin, torch.zeros(3))) / 2
    torch.testing.assert_close(bradley_terry(margin, torch.ones(3)), both)


def test_huge_margins_do_not_overflow() -> None:
    assert bradley_terry(torch.tensor([-1e4, 1e4]), torch.zeros(2)).tolist() == [1e4, 0.0]


def test_padding_does_not_count() -> None:
    assert float(weighted_mean(torch.tensor([1.0, 5.0]), torch.tensor([1.0, 0.0]))) == 1.0
    assert float(weighted_mean(torch.tensor([1.0]), torch.zeros(1))) == 0.0


def test_robust_objective_soft() -> None:
    losses = torch.tensor([0.2, 0.4, 0.9])
    threshold = 0.4  # the median
    expected = sum(x / (1 + math.exp(-(x - threshold) / 0.5)) for x in losses.tolist())
    assert float(robust_objective(losses, ratio=0.5, gamma=0.5)) == pytest.approx(expected)


def test_robust_objective_hard_keeps_the_tail_and_detaches_the_mask() -> None:
    losses = torch.tensor([0.2, 0.4, 0.9], requires_grad=True)
    value = robust_objective(losses, ratio=0.5, gamma=0.0)
    value.backward()
    assert float(value.detach()) == pytest.approx(0.9)
    assert losses.grad is not None
    assert losses.grad.tolist() == [0.0, 0.0, 1.0]


def test_pad_marks_what_is_padding() -> None:
    users = [Pairs(torch.ones(n, 2), torch.ones(n), torch.zeros(n)) for n in (1, 3, 0)]
    batch = pad(users)
    assert batch.z.shape == (3, 3, 2)
    assert batch.strength.sum(-1).tolist() == [1.0, 3.0, 0.0]
    with pytest.raises(ValueError, match="at least one"):
        pad([])
