"""Discounts of old judgements: the stated rule, and what must not change it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrm_sdk.core.drift import discounts, rating_discounts
from mrm_sdk.core.ratings import rated_pairs

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AGES = st.lists(st.integers(0, 10**9).map(lambda seconds: timedelta(seconds=seconds)), min_size=1, max_size=20)
HALF_LIVES = st.floats(1e-3, 1e9)
Factors = list[float]
FACTORS = st.lists(st.one_of(st.just(0.0), st.floats(1e-12, 1)), min_size=1, max_size=20)


def total(factors: Factors) -> float:
    """How many comparisons ratings of one prompt make together, before their values are looked at."""
    n, discount = len(factors), np.array(factors)
    root = np.sqrt(rating_discounts(discount, np.zeros(n, np.int64)))
    return float((root.sum() ** 2 - (root**2).sum()) / n)


@given(AGES, HALF_LIVES)
def test_the_rule(ages: list[timedelta], half_life: float) -> None:
    discounted = discounts([NOW - age for age in ages], half_life)
    expected = [0.5 ** ((age - min(ages)).total_seconds() / half_life) for age in ages]
    np.testing.assert_allclose(discounted, expected, rtol=1e-9, atol=1e-300)
    assert discounted[ages.index(min(ages))] == 1


@given(AGES, HALF_LIVES, st.integers(-(10**9), 10**9), st.randoms())
def test_neither_the_clock_nor_the_order_matters(
    ages: list[timedelta], half_life: float, later: int, random: object
) -> None:
    moments = [NOW - age for age in ages]
    discounted = discounts(moments, half_life).tolist()
    assert discounts([moment + timedelta(seconds=later) for moment in moments], half_life).tolist() == discounted
    pairs = list(zip(moments, discounted, strict=True))
    random.shuffle(pairs)  # type: ignore[attr-defined]
    assert discounts([moment for moment, _ in pairs], half_life).tolist() == [factor for _, factor in pairs]


@given(AGES, HALF_LIVES)
def test_nothing_is_discounted_without_a_half_life_or_without_age(ages: list[timedelta], half_life: float) -> None:
    assert discounts([NOW - age for age in ages], None).tolist() == [1.0] * len(ages)
    assert discounts([NOW] * len(ages), half_life).tolist() == [1.0] * len(ages)
    assert discounts([], half_life).tolist() == []
    np.testing.assert_allclose(discounts([NOW - age for age in ages], 1e18), 1, rtol=1e-8)


def test_the_oldest_that_can_be() -> None:
    moments = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
    assert discounts(moments, 1e-6).tolist() == [0, 1]


@given(st.lists(st.integers(0, 4), max_size=20))
def test_ratings_of_one_age_are_as_before(prompt: list[int]) -> None:
    labels = np.array(prompt, np.int64)
    assert rating_discounts(np.ones(len(prompt)), labels).tolist() == [1.0] * len(prompt)
    np.testing.assert_allclose(rating_discounts(np.full(len(prompt), 0.25), labels), 0.25, rtol=1e-12)


@given(FACTORS)
def test_ratings_count_as_the_documentation_says(factors: Factors) -> None:
    discount = np.array(factors)
    if not discount.sum():
        assert total(factors) == 0
        return
    effective = np.sqrt(discount).sum() ** 2 / discount.sum()
    assert total(factors) == pytest.approx(discount.sum() * (1 - 1 / effective), rel=1e-9, abs=1e-9)


@given(FACTORS, st.integers(1, 50))
def test_old_ratings_do_not_dilute_new_ones(factors: Factors, old: int) -> None:
    assert total([*factors, *[0.0] * old]) == pytest.approx(total(factors), rel=1e-9, abs=1e-9)


def test_a_pair_counts_by_the_geometric_mean() -> None:
    values, prompt = np.array([1.0, 2.0, 3.0]), np.zeros(3, np.int64)
    discount = np.array([1.0, 0.25, 0.0625])
    full = rated_pairs(values, prompt, np.ones(3))
    aged = rated_pairs(values, prompt, rating_discounts(discount, prompt))
    effective = (1 + 0.5 + 0.25) ** 2 / discount.sum()
    for better, worse, before, after in zip(full.better, full.worse, full.strength, aged.strength, strict=True):
        expected = before * 3 / effective * np.sqrt(discount[better] * discount[worse])
        assert after == pytest.approx(expected, rel=1e-12)


def test_prompts_do_not_touch_each_other() -> None:
    discount, prompt = np.array([1.0, 0.5, 0.25, 0.125]), np.array([0, 1, 0, 1])
    both = rating_discounts(discount, prompt)
    for label in (0, 1):
        mine = prompt == label
        alone = rating_discounts(discount[mine], np.zeros(2, np.int64))
        np.testing.assert_allclose(both[mine], alone, rtol=1e-12)
