"""Ratings as weighted comparisons: the stated rule, and nothing but the rule."""

from __future__ import annotations

import math
from itertools import combinations
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mrm_sdk.core.ratings import MOST_DISTANCES, compare_ratings, pairs_of, rated_alone, rated_pairs

SHORT = st.lists(
    st.tuples(st.integers(-5, 5), st.integers(0, 3), st.sampled_from([0.25, 1.0, 100.0])), min_size=0, max_size=30
)
Made = dict[tuple[int, int], float]


def made(values: list[float], prompt: list[int] | None = None, strength: list[float] | None = None) -> Made:
    """The weight of each pair (better, worse)."""
    columns = rated_pairs(
        np.array(values, np.float64),
        np.array(prompt or [0] * len(values), np.int64),
        np.array(strength or [1.0] * len(values), np.float64),
    )
    pairs = {(int(b), int(w)): float(s) for b, w, s in zip(*columns, strict=True)}
    assert len(pairs) == len(columns.better)  # no pair is made twice
    return pairs


def rule(values: list[float], prompt: list[int], strength: list[float]) -> Made:
    """The rule as the documentation states it, one pair at a time."""
    spread, expected = float(np.std(values)) if values else 0.0, {}
    for a, b in combinations(range(len(values)), 2):
        if prompt[a] == prompt[b] and values[a] != values[b]:
            better, worse = (a, b) if values[a] > values[b] else (b, a)
            weight = 2 / prompt.count(prompt[a]) * math.sqrt((values[better] - values[worse]) / spread)
            expected[better, worse] = weight * math.sqrt(strength[a] * strength[b])
    return expected


@given(SHORT)
def test_the_rule(ratings: list[tuple[int, int, float]]) -> None:
    values, prompt, strength = ([float(r[0]) for r in ratings], [r[1] for r in ratings], [r[2] for r in ratings])
    assert made(values, prompt, strength) == pytest.approx(rule(values, prompt, strength), rel=1e-9)


@given(SHORT, st.randoms())
def test_the_order_does_not_matter(ratings: list[tuple[int, int, float]], random: Random) -> None:
    places = list(range(len(ratings)))
    random.shuffle(places)
    columns = [list(column) for column in zip(*ratings, strict=True)] or [[], [], []]
    moved = [[column[place] for place in places] for column in columns]
    weights = {(places[b], places[w]): weight for (b, w), weight in made(*moved).items()}
    assert weights == pytest.approx(made(*columns), rel=1e-9)


def test_n_ratings_count_as_n_minus_1_comparisons() -> None:
    # Before each pair is weighed by how far apart its two values are.
    for n in (2, 3, 10, MOST_DISTANCES + 1, MOST_DISTANCES + 2, 100, 2000):
        values = [float(value) for value in np.random.default_rng(n).permutation(n)]
        spread = float(np.std(values))
        total = sum(s / math.sqrt((values[b] - values[w]) / spread) for (b, w), s in made(values).items())
        assert total == pytest.approx(n - 1, rel=1e-9)


@pytest.mark.slow
def test_many_ratings_make_few_pairs_and_count_as_much_as_all() -> None:
    n = 5000
    values = np.random.default_rng(0).standard_normal(n)
    prompt, strength = np.zeros(n, np.int64), np.ones(n)
    rated = rated_pairs(values, prompt, strength)
    assert len(rated.better) <= MOST_DISTANCES * n
    meets = np.bincount(np.concatenate([rated.better, rated.worse]), minlength=n)
    assert meets.min() > 0
    assert meets.max() <= 2 * MOST_DISTANCES
    every = rated_pairs(values, prompt, strength, most_distances=n)
    assert len(every.better) == n * (n - 1) // 2
    assert rated.strength.sum() == pytest.approx(every.strength.sum(), rel=0.01)
    # Not only in sum: each rating pulls up or down as it would with all pairs.
    pull = [np.bincount(r.better, r.strength, n) - np.bincount(r.worse, r.strength, n) for r in (rated, every)]
    assert np.corrcoef(*pull)[0, 1] > 0.99


def test_a_large_prompt_leaves_a_small_one_alone() -> None:
    small = [3.0, 1.0, 2.0]
    large = [float(value % 7) for value in range(200)]
    pairs = made([*small, *large], [1] * 3 + [0] * 200)
    spread = float(np.std([*small, *large]))
    mine = {pair: weight for pair, weight in pairs.items() if max(pair) < 3}
    assert mine == pytest.approx(
        {pair: 2 / 3 * math.sqrt(gap / spread) for pair, gap in {(0, 1): 2, (0, 2): 1, (2, 1): 1}.items()}
    )
    assert not [pair for pair in pairs if min(pair) < 3 <= max(pair)]


@pytest.mark.parametrize("factor", [1e-300, 1e-5, 7.0, 1e307])
def test_the_scale_does_not_matter(factor: float) -> None:
    values = [-5.0, -1.0, 0.0, 2.0, 9.0]
    assert made([factor * value for value in values]) == pytest.approx(made(values), rel=1e-6)


@pytest.mark.parametrize("values", [[], [3.0], [2.0, 2.0, 2.0], [0.0, 0.0], [1e308]])
def test_nothing_to_compare(values: list[float]) -> None:
    assert made(values) == {}


def test_equal_thumbs_say_nothing() -> None:
    assert set(made([1.0, 1.0, -1.0])) == {(0, 2), (1, 2)}
    assert made([1.0, -1.0], [0, 1]) == {}


def held(values: list[float], prompt: list[int] | None = None, strength: list[float] | None = None) -> dict[int, float]:
    """How much each rating counts against the threshold: above 0 where it lies above, below where below."""
    n = len(values)
    better, worse, weight = rated_alone(
        np.array(values, np.float64),
        np.array(prompt or range(n), np.int64),
        np.array(strength or [1.0] * n, np.float64),
    )
    assert all((better == n) != (worse == n))
    signed = {int(min(b, w)): float(s if w == n else -s) for b, w, s in zip(better, worse, weight, strict=True)}
    assert len(signed) == len(weight)
    return signed


def test_thumbs_count_by_their_sign() -> None:
    assert held([1.0, -1.0, 0.0]) == {0: 1.0, 1: -1.0}
    assert held([1.0]) == {0: 1.0}
    assert held([-1.0, -1.0, 1.0], [0, 0, 1], [1, 2, 3]) == {0: -0.5, 1: -1.0, 2: 3.0}


def test_other_scales_count_by_the_distance_from_the_mean() -> None:
    assert held([1.0, 2.0, 3.0]) == pytest.approx({0: -(1.5**0.25), 2: 1.5**0.25})
    assert held([0.0, 1.0, 1.0, 1.0]) == pytest.approx({0: -(3**0.25), 1: 3**-0.25, 2: 3**-0.25, 3: 3**-0.25})
    assert held([0.1, 0.2, 0.3]).keys() == {0, 2}  # though the mean is not exactly 0.2
    assert held([1e307 * value for value in (-5, 1, 4)]) == pytest.approx(held([-5.0, 1.0, 4.0]))


@pytest.mark.parametrize("values", [[], [3.0], [-2.0], [0.0, 0.0], [2.0, 2.0, 2.0], [1e308]])
def test_nothing_can_be_said_of_one_value(values: list[float]) -> None:
    assert held(values) == {}


@given(SHORT, st.randoms())
def test_the_order_does_not_matter_against_the_threshold(ratings: list[tuple[int, int, float]], random: Random) -> None:
    places = list(range(len(ratings)))
    random.shuffle(places)
    columns = [list(column) for column in zip(*ratings, strict=True)] or [[], [], []]
    moved = held(*([column[place] for place in places] for column in columns))
    assert {places[n]: weight for n, weight in moved.items()} == pytest.approx(held(*columns), rel=1e-9)


@given(st.lists(st.tuples(st.sampled_from([1.0, -1.0]), st.integers(0, 3)), min_size=1, max_size=30))
def test_thumbs_of_a_prompt_count_once_together(ratings: list[tuple[float, int]]) -> None:
    values, prompt = ([*column] for column in zip(*ratings, strict=True))
    alone = held(values, prompt)
    for number in set(prompt):
        assert sum(abs(alone[n]) for n, p in enumerate(prompt) if p == number) == pytest.approx(1)


def test_what_the_inner_loop_sees() -> None:
    base_rewards = np.array([[1.0, 0.0], [0.0, 3.0], [2.0, 2.0]])
    values, prompt = np.array([1.0, 2.0, 1.0]), np.zeros(3, np.int64)
    pairs = pairs_of(compare_ratings(values, prompt, np.ones(3)), base_rewards)
    # The last column is the threshold's: 2 is above the mean, both 1s are below it.
    alone = [[-2.0, -2.0, 1.0], [-1.0, 0.0, 1.0], [0.0, 3.0, -1.0]]
    assert sorted(pairs.z.tolist()) == sorted([[-2.0, 1.0, 0.0], [-1.0, 3.0, 0.0], *alone])
    assert pairs.tie.tolist() == [0.0] * 5
    assert {tensor.dtype for tensor in pairs} == {torch.float64}
    none = pairs_of(compare_ratings(values[:0], prompt[:0], np.ones(0)), base_rewards[:0])
    assert (none.z.shape, none.strength.shape, none.tie.shape) == ((0, 3), (0,), (0,))
