"""Texts that a fit has seen and new ones, each judged by itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mrm_sdk.bundle import Bundle
from mrm_sdk.bundle.reference import Reference
from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.data.datasets import Dataset, read_dataset
from mrm_sdk.encoders import open_encoder
from mrm_sdk.errors import BundleMismatchError, ConfigurationError, DatasetError
from mrm_sdk.evaluation.comparison import compare
from mrm_sdk.evaluation.corners import cornered, corners_of, judged_by
from mrm_sdk.evaluation.protocol import Report, evaluate
from mrm_sdk.evaluation.reports.comparison import comparison_page, comparison_table
from mrm_sdk.evaluation.reports.evaluation import evaluation_figure, evaluation_page, evaluation_table
from mrm_sdk.evaluation.splits import fold_splits, unseen_split
from mrm_sdk.evaluation.texts import CORNERS
from mrm_sdk.training.config import EmpiricalBayesConfig, TrainingConfig
from mrm_sdk.training.pipeline import train_bundle
from tests.conftest import write_embedded_dataset
from tests.evaluation.known_methods import Adding, assert_self_contained


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read_dataset(write_embedded_dataset(tmp_path_factory.mktemp("people") / "d", users=24))


def items_of(data: Dataset, phase: int | None = None) -> set[int]:
    rows = np.full(len(data), True) if phase is None else data.phase == phase
    return {*data.chosen[rows].tolist(), *data.rejected[rows].tolist()}


def test_known_texts_are_those_that_were_learned_from(people: Dataset) -> None:
    for split in fold_splits(people, 3, seed=0):
        assert corners_of(split) == ["known", "new"]
        known = cornered(split, "known", np.random.default_rng(0))
        assert known.training is split.training
        assert items_of(known.judged, QUERY) <= items_of(known.training)
        assert len(known.judged) == len(people)  # all texts come again here


def test_new_texts_are_in_no_comparison_that_is_learned_from(people: Dataset) -> None:
    (split, *_) = fold_splits(people, 3, seed=0)
    new = cornered(split, "new", np.random.default_rng(0))
    judged = items_of(new.judged, QUERY)
    assert judged
    assert not judged & items_of(new.training)
    assert items_of(new.judged, SUPPORT) == items_of(people, SUPPORT)  # adapting may know the texts
    assert set(new.users) <= set(split.users)
    assert set(new.learners) == set(new.training.user[new.training.phase == QUERY])
    again, other = (cornered(split, "new", np.random.default_rng(seed)) for seed in (0, 1))
    assert items_of(again.judged, QUERY) == judged != items_of(other.judged, QUERY)


def chats(folder: Path, prompts: int, first: int, users: str) -> Dataset:
    """Each user compares two answers to each of some prompts, half of them to be judged by."""
    folder.mkdir()
    vectors = np.random.default_rng(first).normal(size=(first + prompts, 2, 4))
    with (folder / "comparisons.jsonl").open("w") as file:
        for user in range(8):
            for prompt in range(first, first + prompts):
                sides = [{"text": f"{prompt}-{i}", "embedding": vectors[prompt, i].tolist()} for i in (0, 1)]
                row = {"user_id": f"{users}{user}", "prompt": f"question {prompt}", "chosen": sides[0]}
                phase = ("support", "query")[prompt % 2]
                file.write(json.dumps({**row, "rejected": sides[1], "phase": phase}) + "\n")
    return read_dataset(folder)


def test_answers_of_one_prompt_are_held_back_together(tmp_path: Path) -> None:
    (split, *_) = fold_splits(chats(tmp_path / "d", 12, 0, "a"), 2, seed=0)
    new = cornered(split, "new", np.random.default_rng(0))
    learned = {new.judged.items[i].prompt for i in items_of(new.training)}
    judged = {new.judged.items[i].prompt for i in items_of(new.judged, QUERY)}
    assert judged
    assert not judged & learned


def test_data_whose_texts_never_come_again_need_none_held_back(tmp_path: Path) -> None:
    split = unseen_split(chats(tmp_path / "a", 12, 0, "a"), chats(tmp_path / "b", 6, 12, "b"))
    assert corners_of(split) == ["new"]
    new = cornered(split, "new", np.random.default_rng(0))
    assert (len(new.training), len(new.judged)) == (8 * 12, 8 * 6)
    assert len(cornered(split, "known", np.random.default_rng(0)).users) == 0


def test_a_text_of_both_data_sets_is_one_item(people: Dataset) -> None:
    others = replace(people, user_ids=[f"new-{name}" for name in people.user_ids])
    split = unseen_split(people, others)
    assert items_of(split.judged) == items_of(split.training)
    assert corners_of(split) == ["known", "new"]


def test_comparing_by_both_kinds(people: Dataset) -> None:
    spy = Adding()
    found = compare(people, {"population": spy, "adding": Adding(common=0.0)}, folds=3, seeds=(0, 1), shots=(0, 12))
    assert (found.texts, found.reference, len(spy.seen)) == ("known", "population", 12)
    new = found.new_texts
    assert new is not None
    assert (new.texts, new.new_texts) == ("new", None)
    only = compare(people, {"population": Adding(), "adding": Adding(common=0.0)}, folds=3, shots=(0, 12), seeds=(0, 1),
                   texts="new")  # fmt: skip
    assert [m.points for m in only.methods] == [m.points for m in new.methods]
    assert 0 < new.users <= found.users
    assert new.of("population").points[0].over_population is None
    over = new.of("adding").points[-1].over_population
    assert over is not None
    expected = new.of("adding").points[-1].accuracy - new.of("population").points[-1].accuracy
    assert over.difference == pytest.approx(expected)
    text, page = comparison_table(found), comparison_page(found, "t")
    assert text.index("Texts that the fits have seen.") < text.index("New texts.")
    assert max(map(len, text.splitlines())) <= 80
    assert_self_contained(page)
    assert page.count("<svg") == 1
    assert f">{new.of('adding').points[-1].accuracy:.1%}</td>" in page
    with pytest.raises(ConfigurationError, match="auto, known, new; not 'old'"):
        compare(people, {"adding": spy}, texts="old")  # type: ignore[arg-type]  # what a type checker would not allow


def test_texts_that_are_not_there(tmp_path: Path) -> None:
    data, unseen = chats(tmp_path / "a", 12, 0, "a"), chats(tmp_path / "b", 6, 12, "b")
    with pytest.raises(DatasetError, match="two texts that are known to a fit"):
        compare(data, {"adding": Adding()}, unseen=unseen, texts="known")


@pytest.fixture(scope="module")
def bundle(people: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of half of the texts."""
    path = tmp_path_factory.mktemp("half") / "b"
    half = np.arange(len(people.items)) < len(people.items) // 2
    kept = np.flatnonzero(half[people.chosen] & half[people.rejected])
    columns = {n: getattr(people, n)[kept] for n in ("user", "chosen", "rejected", "tie", "strength", "phase")}
    lists = {n: [getattr(people, n)[row] for row in kept] for n in ("event_ids", "created_at")}
    config = TrainingConfig(base_functions=4, outer=EmpiricalBayesConfig(iterations=3))
    train_bundle(replace(people, **columns, **lists), path, config=config)
    return Bundle(path)


@pytest.fixture(scope="module")
def report(bundle: Bundle, people: Dataset) -> Report:
    return evaluate(bundle, people, open_encoder(None, bundle), shots=(0, 3, 12))


def test_a_bundle_tells_texts_that_it_has_seen(bundle: Bundle, people: Dataset) -> None:
    half = len(people.items) // 2
    known = bundle.reference().knows(people.items)
    assert known is not None
    assert not known[half:].any()
    assert known[:half].sum() >= half - 2  # but for items that no two of the half were compared with


def test_a_bundle_is_judged_by_both_kinds(report: Report, bundle: Bundle, people: Dataset) -> None:
    assert list(report.corners) == ["known", "new"]
    known = np.arange(len(people.items)) < len(people.items) // 2
    for corner in CORNERS:
        part = judged_by(people, corner, known)
        alone = evaluate(bundle, part, open_encoder(None, bundle), shots=(0, 3, 12))
        found = report.corners[corner]
        assert found.points == alone.points
        assert (found.texts, alone.texts, report.texts) == (corner, corner, None)
        only = evaluate(bundle, people, open_encoder(None, bundle), shots=(0, 3, 12), texts=corner)
        assert only.points == found.points
    assert set(report.as_json()["corners"]) == {"known", "new"}
    json.dumps(report.as_json())


def test_one_reward_for_all_stands_beside(report: Report, bundle: Bundle, people: Dataset) -> None:
    reference = bundle.reference()
    known = np.arange(len(people.items)) < len(people.items) // 2
    for found, direction, judged in (
        (report, reference.known, people),
        (report.corners["known"], reference.known, judged_by(people, "known", known)),
        (report.corners["new"], reference.new, judged_by(people, "new", known)),
    ):
        assert direction is not None
        assert found.population is not None
        scores = people.vectors(np.arange(len(people.items))).astype(float) @ direction.numpy()
        query = (judged.phase == QUERY) & ~judged.tie
        right = (scores[judged.chosen] > scores[judged.rejected])[query]
        by_user = [right[judged.user[query] == user].mean() for user in np.unique(judged.user[query])]
        assert found.population.accuracy == pytest.approx(np.mean(by_user))
        over = found.points[-1].over_population
        assert over is not None
        assert over.difference == pytest.approx(found.points[-1].accuracy - np.mean(by_user))
    assert not torch.equal(reference.known, reference.new)  # type: ignore[arg-type]  # seen above


@pytest.mark.slow
def test_both_kinds_in_one_picture(report: Report) -> None:
    svg = evaluation_figure(report, "t")
    assert svg.count("<svg") == 1
    for title in ("Texts that the fit has seen", "New texts"):
        assert title in svg
        assert title in evaluation_page(report, "t", svg)
        assert f"{title}." in evaluation_table(report)
    assert max(map(len, evaluation_table(report).splitlines())) <= 80
    assert_self_contained(evaluation_page(report, "t", svg))


def test_a_bundle_of_before_says_nothing_of_texts(
    bundle: Bundle, people: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bundle, "reference", lambda _: Reference())
    found = evaluate(bundle, people, open_encoder(None, bundle), shots=(3,))
    assert (found.corners, found.texts, found.population, found.points[0].over_population) == ({}, None, None, None)
    with pytest.raises(BundleMismatchError, match="train it again"):
        evaluate(bundle, people, open_encoder(None, bundle), texts="new")
