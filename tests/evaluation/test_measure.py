"""Judging a fitted method: figures known beforehand, batches of any size, and what cannot be judged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mrm_sdk.data.datasets import Dataset, read_dataset
from mrm_sdk.errors import ConfigurationError, DatasetError, TrainingError
from mrm_sdk.evaluation.measure import measure
from mrm_sdk.evaluation.method import FittedMethod
from mrm_sdk.evaluation.protocol import Report, judge
from tests.conftest import write_embedded_dataset
from tests.evaluation.known_methods import total

A, B = {"embedding": [1, 0]}, {"embedding": [0, 1]}


def dataset_of(folder: Path, rows: list[tuple[str, str, str, bool]]) -> Dataset:
    """Comparisons of two items: (user, phase, what was chosen, tie)."""
    sides = {"a": (A, B), "b": (B, A)}
    with (folder / "comparisons.jsonl").open("w") as file:
        for number, (user, phase, choice, tie) in enumerate(rows):
            chosen, rejected = sides[choice]
            row = {"user_id": user, "phase": phase, "chosen": chosen, "rejected": rejected, "tie": tie}
            file.write(json.dumps({**row, "event_id": f"e{number}"}) + "\n")
    return read_dataset(folder)


def features(dataset: Dataset) -> torch.Tensor:
    return torch.from_numpy(dataset.vectors(np.arange(len(dataset.items)))).double()


@pytest.fixture
def opposed(tmp_path: Path) -> Dataset:
    """Ada likes a, Bob likes b, Cy is half and half; each said so twice, Ada once more, as a tie."""
    rows = [("ada", "support", "a", False), ("ada", "support", "b", True), ("ada", "query", "a", False)]
    rows += [("bob", "support", "b", False), ("bob", "support", "b", False), ("bob", "query", "b", False)]
    rows += [("cy", "support", "a", False), ("cy", "query", "a", False), ("cy", "query", "b", False)]
    rows += [("cy", "query", "b", True)]
    return dataset_of(tmp_path, rows)


def test_figures_of_a_case_small_enough_to_check_by_hand(opposed: Dataset) -> None:
    start = torch.tensor([0.5, 0.0], dtype=torch.float64)  # unadapted, a is preferred
    fitted = FittedMethod(features(opposed), lambda support: start + total(support))
    report = judge(fitted, opposed, shots=[0, 1])
    assert report.user_ids == ["ada", "bob", "cy"]
    assert report.per_user.tolist() == [[1, 0, 0.5], [1, 1, 0.5]]
    zero, one = report.points
    assert (zero.accuracy, zero.control, zero.flipped) == (0.5, 0.5, 0.5)
    assert one.accuracy == pytest.approx(2.5 / 3)
    assert (one.worst_tenth, one.worst_fifth, one.worst_half) == (0.5, 0.5, 0.5)
    # Cy has most comparisons and is judged last, so Ada is judged with Cy's weights (a), Bob with Ada's, Cy with Bob's.
    assert one.control == pytest.approx((1 + 0 + 0.5) / 3)
    # Margins after one shot: ±2.5 for a, −1.5 for b; reversed: Ada and Cy −1.5, Bob 2.5.
    assert one.flipped == pytest.approx((0 + 0 + 0.5) / 3)
    assert one.gain.difference == pytest.approx(1 / 3)
    assert one.over_control is not None
    assert one.over_control.difference == pytest.approx(1 / 3)
    assert one.flip_drop.difference == pytest.approx(1 / 3)
    p, q = 1 / (1 + np.exp(-2.5)), 1 / (1 + np.exp(-1.5))
    assert one.brier == pytest.approx(((1 - p) ** 2 + (1 - q) ** 2 + ((1 - p) ** 2 + p**2) / 2) / 3)
    # σ(1.5) and σ(2.5) fall into bins 9 and 12: Bob alone in one; Ada and Cy together in the other, right 1.5 of 2.
    assert one.ece == pytest.approx((abs(q - 1) + abs(2 * p - 1.5)) / 3)


def test_the_second_shot_is_a_tie_and_reversing_leaves_it(opposed: Dataset) -> None:
    ties = FittedMethod(
        features(opposed), lambda support: torch.ones(len(support.z), 2).double() * support.tie.sum(1, True)
    )
    report = judge(ties, opposed, shots=[2])
    assert report.points[0].flipped == report.points[0].accuracy == 0.5


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read_dataset(write_embedded_dataset(tmp_path_factory.mktemp("many") / "d", users=30))


def test_reversed_choices_mirror_a_linear_method(many: Dataset) -> None:
    report = judge(FittedMethod(features(many), total), many, shots=[5, 10**6])
    assert [point.shots for point in report.points] == [5, 12]
    for point in report.points:
        assert point.flipped == pytest.approx(1 - point.accuracy)
        assert point.gain.difference == pytest.approx(point.accuracy - 0.5)
    assert "personalization is not shown" not in doubts(report)
    assert "Probabilities are worse" in doubts(report)  # sums of differences are far too sure


def test_batches_of_any_size_give_the_same(many: Dataset) -> None:
    fitted = FittedMethod(features(many), total)
    users = np.arange(30)
    at_once = measure(fitted, many, users, [0, 3, 12])
    seen: list[tuple[int, int]] = []
    for cells in (1, 12 * 6 * 7):
        measured = measure(fitted, many, users, [0, 3, 12], cells=cells, progress=lambda _, d, t: seen.append((d, t)))
        for a, b in zip(measured, at_once, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    assert seen == [(i, 30) for i in range(1, 31)] + [(i, 30) for i in (7, 14, 21, 28, 30)]
    assert not np.array_equal(at_once.control, at_once.accuracy)


def test_no_batch_is_larger_than_its_bound(tmp_path: Path) -> None:
    """One user with very many comparisons does not make all users' tables wide."""
    rows = [(f"u{i}", phase, "ab"[i % 2], False) for i in range(40) for phase in ("support", "query")]
    rows += [("giant", "support", "a", False)] * 500 + [("giant", "query", "a", False)]
    data = dataset_of(tmp_path, rows)
    sizes = []

    def adapt(support):  # type: ignore[no-untyped-def]
        sizes.append(support.z.numel())
        return total(support)

    measured = measure(FittedMethod(features(data), adapt), data, np.arange(41), [600], cells=80)
    assert sorted(set(sizes)) == [80, 1000]
    assert measured.accuracy[0].tolist() == [1.0] * 41


def test_some_users_only(many: Dataset) -> None:
    fitted = FittedMethod(features(many), total)
    report = judge(fitted, many, users=np.array([7, 3, 20]), shots=[12], about={"name": "sums"})
    assert report.user_ids == ["u3", "u7", "u20"]
    assert report.bundle == {"name": "sums"}
    all_users = judge(fitted, many, shots=[12])
    assert report.per_user[0].tolist() == all_users.per_user[0, [3, 7, 20]].tolist()


def doubts(report: Report) -> str:
    return " ".join(report.doubts())


def test_doubts_are_said(many: Dataset) -> None:
    start = torch.ones(6, dtype=torch.float64)
    alike = judge(FittedMethod(features(many), lambda support: start.expand(len(support.z), -1)), many)
    assert "not clearly above the accuracy before: personalization is not shown." in doubts(alike)
    assert "Own weights are not clearly better than another user's" in doubts(alike)
    assert "reversed choices does not clearly lower the accuracy" in doubts(alike)
    assert judge(FittedMethod(features(many), total), many, shots=[0]).doubts() == []  # nothing adapted or claimed


def test_what_cannot_be_judged(many: Dataset) -> None:
    fitted = FittedMethod(features(many), total)
    for shots in ([], [3, -1]):
        with pytest.raises(ConfigurationError, match="0 or more"):
            judge(fitted, many, shots=shots)
    with pytest.raises(DatasetError, match="nothing to judge by"):
        judge(fitted, many, users=np.array([], np.int64))
    with pytest.raises(TrainingError, match="NaN or infinity"):
        judge(FittedMethod(fitted.features, lambda support: total(support) / 0), many)
