"""Intervals: what they cover, that they are paired, and that they come out the same again."""

from __future__ import annotations

import numpy as np
import pytest

from mrm_sdk.evaluation import bootstrap
from mrm_sdk.evaluation.bootstrap import paired_intervals


def test_against_a_loop() -> None:
    differences = np.random.default_rng(3).normal(size=(2, 7))
    rng = np.random.default_rng(0)
    draws = rng.integers(7, size=(bootstrap.RESAMPLES, 7))
    for interval, row in zip(paired_intervals(differences), differences, strict=True):
        resampled = [sum(row[user] for user in drawn) / 7 for drawn in draws]
        assert interval.difference == pytest.approx(row.mean())
        assert [interval.low, interval.high] == pytest.approx(np.quantile(resampled, [0.025, 0.975]).tolist())


def test_it_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = sum(
        interval.low <= 0.3 <= interval.high
        for interval in (paired_intervals(rng.normal(0.3, 1, (1, 100)), seed=i)[0] for i in range(200))
    )
    assert 180 <= hits <= 199


def test_what_users_have_in_common_cancels() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 10, 300)
    own, other = hard + 1 + rng.normal(0, 0.1, 300), hard + rng.normal(0, 0.1, 300)
    (interval,) = paired_intervals((own - other)[None])
    assert 0.95 < interval.low < interval.difference < interval.high < 1.05


def test_batches_of_resamples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(0).normal(size=(3, 11))
    at_once = paired_intervals(differences, seed=4)
    assert paired_intervals(differences, seed=4) == at_once
    assert paired_intervals(differences, seed=5) != at_once
    monkeypatch.setattr(bootstrap, "_CELLS", 11 * 64)
    for a, b in zip(paired_intervals(differences, seed=4), at_once, strict=True):
        assert (a.low, a.high) == pytest.approx((b.low, b.high))


def test_no_difference_has_no_width() -> None:
    nothing, constant = paired_intervals(np.stack([np.zeros(9), np.full(9, 0.1)]))
    assert (nothing.low, nothing.difference, nothing.high) == (0, 0, 0)
    assert constant.low <= constant.difference <= constant.high
    assert constant.high - constant.low < 1e-12
