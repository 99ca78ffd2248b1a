"""Comparing methods: who is learned from and judged, what comes out, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mrm_sdk.data.contents import QUERY
from mrm_sdk.data.datasets import Dataset, read_dataset
from mrm_sdk.data.ratings import Ratings
from mrm_sdk.errors import ConfigurationError, DatasetError
from mrm_sdk.evaluation.comparison import Standings, compare
from mrm_sdk.evaluation.reports.comparison import comparison_page, comparison_table
from mrm_sdk.evaluation.splits import fold_splits, unseen_split
from tests.conftest import write_embedded_dataset
from tests.evaluation.known_methods import Adding, Ignoring, assert_self_contained

SHOTS = (0, 3, 12)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """23 users; of the last two, one has only ties to be judged by, and one no query at all."""
    data = read_dataset(write_embedded_dataset(tmp_path_factory.mktemp("people") / "d", users=23))
    query = data.phase == QUERY
    keep = np.flatnonzero(~(query & (data.user == 22)))
    tie = data.tie | (query & (data.user == 21))
    columns = {name: getattr(data, name)[keep] for name in ("user", "chosen", "rejected", "strength", "phase")}
    kept = {name: [getattr(data, name)[row] for row in keep] for name in ("event_ids", "created_at")}
    return replace(data, tie=tie[keep], **columns, **kept)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    data = read_dataset(write_embedded_dataset(tmp_path_factory.mktemp("others") / "d", users=9, items=20, seed=5))
    return replace(data, user_ids=[f"new-{name}" for name in data.user_ids])


@pytest.fixture(scope="module")
def standings(people: Dataset) -> Standings:
    methods = {"adding": Adding(), "ignoring": Ignoring()}
    return compare(people, methods, folds=4, seeds=(0, 1), shots=SHOTS, texts="known")


def said(data: Dataset, row: int) -> tuple[str, str, str | None, str | None]:
    """Who chose what, in one row."""
    (comparison,) = data.comparisons([row])
    return comparison.user_id, comparison.event_id, comparison.chosen.text, comparison.rejected.text


def test_folds_are_disjoint_complete_and_even(people: Dataset) -> None:
    splits = list(fold_splits(people, 4, seed=1))
    judged = np.concatenate([split.users for split in splits])
    assert sorted(judged) == list(range(21))
    assert sorted(len(split.users) for split in splits) == [5, 5, 5, 6]
    for split in splits:
        # Users without a decided query are learned from, if there is any query, and never judged.
        assert sorted([*split.users, *split.learners]) == list(range(22))
        assert split.judged is people
    again = [split.users.tolist() for split in fold_splits(people, 4, seed=1)]
    assert again == [split.users.tolist() for split in splits]
    assert again != [split.users.tolist() for split in fold_splits(people, 4, seed=2)]


def test_a_fit_holds_nothing_that_judged_users_said(people: Dataset) -> None:
    rated = Ratings(people.user, people.chosen, people.strength, people.phase)
    for split in fold_splits(replace(people, ratings=rated), 3, seed=0):
        data = split.training
        rows = np.flatnonzero(np.isin(people.user, split.learners))
        assert set(data.user) == set(split.learners)
        assert data.ratings is None
        assert data.event_ids[:] == [people.event_ids[row] for row in rows]
        assert data.event_ids[-1] == people.event_ids[rows[-1]]
        assert said(data, 3) == said(people, int(rows[3]))
        assert len(list(data.created_at)) == len(data) == len(rows)


def test_no_method_is_handed_a_comparison_of_those_it_is_judged_by(people: Dataset) -> None:
    spies = {"one": Adding(), "two": Ignoring()}
    compare(people, spies, folds=4, seeds=(3, 8), shots=SHOTS, texts="known")
    one, two = (spy.seen for spy in spies.values())
    assert [seed for *_, seed in one] == [3] * 4 + [8] * 4
    for (data, learners, seed), (data2, learners2, seed2) in zip(one, two, strict=True):
        assert set(data.user) == set(learners)
        assert data2 is data  # all methods see the same
        assert (learners2.tolist(), seed2) == (learners.tolist(), seed)
    for half in (one[:4], one[4:]):
        left_out = [user for _, learners, _ in half for user in set(range(21)) - set(learners.tolist())]
        assert sorted(left_out) == list(range(21))


def test_figures_are_means_over_seeds(people: Dataset, standings: Standings) -> None:
    single = [compare(people, {"adding": Adding()}, folds=4, seeds=[s], shots=SHOTS).of("adding") for s in (0, 1)]
    both = standings.of("adding")
    for i in range(3):
        for name in (
            "accuracy",
            "worst_tenth",
            "worst_fifth",
            "worst_half",
            "control",
            "flipped",
            "loss",
            "brier",
            "ece",
        ):
            values = [getattr(result.points[i], name) for result in single]
            assert getattr(both.points[i], name) == pytest.approx(np.mean(values)), name
        accuracies = [result.points[i].accuracy for result in single]
        assert both.spread[i] == pytest.approx(np.std(accuracies, ddof=1))
    assert [result.spread for result in single] == [[0, 0, 0]] * 2
    assert both.spread[0] > 0


def test_differences_are_of_the_means(standings: Standings) -> None:
    adding, ignoring = standings.methods
    assert (standings.reference, standings.users, standings.folds) == ("adding", 21, 4)
    assert adding.against is None
    assert ignoring.against is not None
    assert ignoring.against.difference == pytest.approx(ignoring.points[-1].accuracy - adding.points[-1].accuracy)
    assert ignoring.against.low < ignoring.against.difference < ignoring.against.high < 0
    assert adding.points[-1].gain.low > 0
    assert ignoring.points[-1].gain.high == 0
    assert ignoring.points[0].accuracy == adding.points[0].accuracy


def test_newton_is_the_reference_where_it_takes_part(people: Dataset) -> None:
    found = compare(people, {"a": Ignoring(), "newton": Adding()}, folds=2, seeds=[0], shots=[2])
    assert found.reference == "newton"
    assert found.of("newton").against is None


def test_the_same_call_gives_the_same_figures(people: Dataset, standings: Standings) -> None:
    methods = {"adding": Adding(), "ignoring": Ignoring()}
    again = compare(people, methods, folds=4, seeds=(0, 1), shots=SHOTS, texts="known")
    for a, b in zip(again.methods, standings.methods, strict=True):
        assert replace(a, seconds=b.seconds) == b


def test_one_user_per_fold_has_no_control(people: Dataset) -> None:
    found = compare(people, {"adding": Adding()}, folds=21, seeds=[0], shots=[12])
    (point,) = found.of("adding").points
    assert (point.control, point.over_control) == (None, None)
    assert "–" in comparison_table(found)
    assert_self_contained(comparison_page(found, "t"))


def test_unseen_users(people: Dataset, others: Dataset) -> None:
    spy = Adding()
    found = compare(people, {"adding": spy}, unseen=others, seeds=(0, 1), shots=SHOTS)
    assert (found.users, found.folds) == (9, None)
    assert found.unseen == others.describe()
    assert "9 unseen users, judged by fits to 23 others (seeds 0, 1)" in comparison_table(found)
    assert len(spy.seen) == 2
    assert all(data.user_ids == people.user_ids and len(data.items) == 50 for data, *_ in spy.seen)
    split = unseen_split(people, others)
    for row in (0, 17):
        assert said(split.judged, row) == said(others, row)
        assert said(split.training, row) == said(people, row)
    # The method adds up differences, so the figures are those of a loop over the other data set alone.
    vectors = {id(data): data.vectors(np.arange(len(data.items))).astype(float) for data in (people, others)}

    def differences(data: Dataset, rows: np.ndarray) -> np.ndarray:
        return vectors[id(data)][data.chosen[rows]] - vectors[id(data)][data.rejected[rows]]

    learned = np.flatnonzero(people.user < 22)
    start = 0.01 * differences(people, learned).sum(0)
    right = []
    for user in range(9):
        mine, query = others.user == user, others.phase == QUERY
        weights = start + differences(others, np.flatnonzero(mine & ~query)[:3]).sum(0)
        right.append(np.mean(differences(others, np.flatnonzero(mine & query)) @ weights > 0))
    assert found.of("adding").points[1].accuracy == pytest.approx(np.mean(right))


def test_table_json_and_page(people: Dataset, standings: Standings) -> None:
    text = comparison_table(standings)
    assert "21 users, each judged by fits that never saw them (4 folds, seeds 0, 1)." in text
    lines = {line.split("  ")[0].strip(): line for line in text.splitlines()}
    assert lines["accuracy at 12 shots"].split()[-2:] == [
        f"{100 * m.points[2].accuracy:.1f}" for m in standings.methods
    ]
    assert len({len(line) for line in text.splitlines()[4:]}) == 1  # aligned
    found = json.loads(json.dumps(standings.as_json()))
    assert found["methods"][0]["points"][2]["accuracy"] == standings.methods[0].points[2].accuracy
    assert found["methods"][1]["against"]["low"] < 0
    assert (found["seeds"], found["folds"], found["unseen"]) == ([0, 1], 4, None)
    html = comparison_page(standings, "Methods & more")
    assert_self_contained(html)
    assert "<title>Methods &amp; more</title>" in html
    assert html.count("<svg") == 1
    assert people.sha256 in html
    assert f">{standings.of('ignoring').points[1].accuracy:.1%}</td>" in html
    assert comparison_page(standings, "Methods & more") == html


def test_the_table_of_all_methods_fits_a_terminal(standings: Standings) -> None:
    method = standings.methods[1]
    names = ("population", "lore", "per_user", "in_context", "paper", "newton")
    wide = replace(
        standings, reference="newton", methods=[replace(method, name=name, seconds=1234.5) for name in names]
    )
    assert max(map(len, comparison_table(wide).splitlines())) <= 80


def test_progress_is_told(people: Dataset) -> None:
    told: list[tuple[str, int, int]] = []

    def tell(stage: str, done: int, total: int) -> None:
        told.append((stage, done, total))

    compare(people, {"a": Adding()}, folds=3, seeds=[0, 1], shots=[1], texts="known", progress=tell)
    assert [stage for stage in told if stage[0] == "comparing"] == [("comparing", i, 6) for i in range(1, 7)]
    assert ("a: adding", 1, 1) in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folds": -1}, "Folds must be 2 or more"),
        ({"folds": 0}, "Folds must be 2 or more"),
        ({"folds": 1}, "Folds must be 2 or more"),
        ({"folds": 22}, "at most the 21 users who can be judged"),
        ({"methods": {}}, "name at least one"),
        ({"seeds": ()}, "Seeds must be distinct"),
        ({"seeds": (1, 1)}, "Seeds must be distinct"),
        ({"seeds": (-1,)}, "0 or more"),
        ({"shots": ()}, "0 or more"),
        ({"shots": (0, -2)}, "0 or more"),
        ({"encoder": "gpt"}, "no encoder 'gpt'"),
    ],
)
def test_wrong_calls(people: Dataset, arguments: dict[str, object], message: str) -> None:
    spy = Adding()
    with pytest.raises(ConfigurationError, match=message):
        compare(people, **{"methods": {"adding": spy}, **arguments})  # type: ignore[arg-type]
    assert not spy.seen


def test_wrong_data(people: Dataset, others: Dataset, tmp_path: Path) -> None:
    methods = {"adding": Adding()}
    with pytest.raises(
        DatasetError, match=r"Users are in both data sets \(1, by their ids\): .* Remove them"
    ) as caught:
        compare(people, methods, unseen=replace(others, user_ids=["u3", *others.user_ids[1:]]))
    assert "u3" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="leave folds out"):
        compare(people, methods, unseen=others, folds=5)
    wide = read_dataset(write_embedded_dataset(tmp_path / "d", dimension=7))
    wide = replace(wide, user_ids=[f"new-{name}" for name in wide.user_ids])
    with pytest.raises(DatasetError, match="found 6 and 7"):
        compare(people, methods, unseen=wide)
    ties = replace(others, tie=np.ones(len(others), bool))
    for call in ({"dataset": ties}, {"dataset": people, "unseen": ties}):
        with pytest.raises(DatasetError, match="nothing to judge by"):
            compare(**call, methods=methods)  # type: ignore[arg-type]
