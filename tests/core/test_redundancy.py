"""Comparisons that repeat each other count no more than what they can say."""

from __future__ import annotations

import numpy as np
import pytest

from mrm_sdk.core.redundancy import independent_share
from mrm_sdk.schemas.feedback import Ranking


def shares(pairs: list[tuple[int, int]], strength: list[float] | None = None) -> list[float]:
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    given = np.ones(len(pairs)) if strength is None else np.array(strength)
    found: list[float] = independent_share(first, second, given).tolist()
    return found


def test_comparisons_of_different_items_count_in_full() -> None:
    assert shares([]) == []
    assert shares([(0, 1), (2, 3), (4, 5)]) == [1, 1, 1]
    assert shares([(0, 1), (1, 2), (2, 3), (7, 2)]) == [1, 1, 1, 1]  # a tree: each says something of its own
    assert shares([(0, 1)], [3.0]) == [1]
    assert shares([(0, 1)], [0.2]) == [1]


def test_connected_items_count_once_each_less_one() -> None:
    assert shares([(0, 1), (1, 2), (2, 0)]) == pytest.approx([2 / 3] * 3)
    assert shares([(0, 1), (1, 2), (2, 0), (8, 9)]) == pytest.approx([2 / 3] * 3 + [1])
    everything = [(i, j) for i in range(6) for j in range(i)]
    assert sum(shares(everything)) == pytest.approx(5)


def test_a_pair_counts_as_often_as_it_is_compared() -> None:
    assert shares([(0, 1), (0, 1), (1, 0)]) == [1, 1, 1]
    triangle = [(0, 1), (1, 2), (2, 0)]
    # Pairs of strength 3, 1 and 1: on average 5/3, of which there are 2 and not 3.
    assert shares([*triangle, (0, 1), (1, 0)]) == pytest.approx([2 / 3] * 5)
    assert shares(triangle, [3.0, 1.0, 1.0]) == pytest.approx([2 / 3] * 3)


def test_a_ranking_is_what_it_was() -> None:
    ranking = Ranking(user_id="u", prompt="p", responses=list("abcdef"))
    strength = [comparison.strength for comparison in ranking.comparisons()]
    pairs = [(i, j) for i in range(6) for j in range(i + 1, 6)]
    assert shares(pairs, strength) == pytest.approx([1] * 15)


def test_what_counts_little_for_its_age_takes_nothing_from_what_is_new() -> None:
    assert shares([(0, 1), (1, 2), (2, 0)], [1.0, 1.0, 0.0]) == [1, 1, 1]
    assert shares([(0, 1), (1, 2), (2, 0)], [1.0, 1.0, 0.5]) == pytest.approx([0.8] * 3)


def test_order_direction_and_names_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(20, size=(2, 60))
    second = np.where(first == second, second + 20, second)
    strength = rng.random(60)
    expected = independent_share(first, second, strength)
    assert 0 < expected.min() < 0.9
    order, names = rng.permutation(60), rng.permutation(40)
    again = independent_share(names[second][order], names[first][order], strength[order])
    np.testing.assert_allclose(again, expected[order], rtol=1e-12)


def test_against_the_rank_of_the_incidence_matrix() -> None:
    """n − 1 for each component is how many quantities comparisons can tell apart."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        first, second = rng.integers(12, size=(2, 15))
        second = np.where(first == second, (second + 1) % 12, second)
        first, second = np.unique(np.sort([first, second], axis=0), axis=1)  # each pair once
        incidence = np.zeros((len(first), 12))
        incidence[np.arange(len(first)), first] += 1
        incidence[np.arange(len(first)), second] -= 1
        share = independent_share(first, second, np.ones(len(first)))
        assert share.sum() <= np.linalg.matrix_rank(incidence) + 1e-9
        if (share < 1).all():
            assert share.sum() == pytest.approx(np.linalg.matrix_rank(incidence))
