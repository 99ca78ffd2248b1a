"""Evaluation, and the test of the whole: its numbers are those of the same users driven through a client."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mrm_sdk import Client
from mrm_sdk.bundle import Bundle
from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.data.datasets import Dataset, Ratings, read_dataset
from mrm_sdk.data.rating_pairs import from_ratings
from mrm_sdk.encoders import open_encoder
from mrm_sdk.errors import BundleMismatchError, ConfigurationError, DatasetError, OutputError
from mrm_sdk.evaluation.protocol import Report, evaluate
from mrm_sdk.evaluation.reports.evaluation import evaluation_figure, evaluation_page, evaluation_table, save_evaluation
from mrm_sdk.schemas.feedback import Rating
from mrm_sdk.schemas.items import Item
from tests.conftest import SHARED, Finished, mrm, write_embedded_dataset
from tests.evaluation.known_methods import assert_self_contained


def through_a_client(bundle: Bundle, dataset: Dataset, users: list[str], shots: int, folder: Path) -> list[float]:
    """Accuracy of each user as a host application would see it."""
    found = []
    with Client(f"sqlite:///{folder / f'{shots}.db'}", bundle=bundle) as client:
        for name in users:
            user = dataset.user_ids.index(name)
            rows = np.flatnonzero((dataset.user == user) & (dataset.phase == SUPPORT))[:shots]
            client.record_many(dataset.comparisons(rows))
            assert client.personalize(name).comparisons == len(rows)
            right = []
            for row in np.flatnonzero((dataset.user == user) & (dataset.phase == QUERY) & ~dataset.tie):
                comparison = next(dataset.comparisons([row]))
                responses = [comparison.chosen, comparison.rejected]
                chosen, rejected = client.score(name, responses, prompt=comparison.prompt)
                right.append(1.0 if chosen > rejected else 0.5 if chosen == rejected else 0.0)
            found.append(float(np.mean(right)))
    return found


@pytest.mark.slow
def test_evaluation_is_what_a_host_sees_with_embeddings(
    embedded_bundle: Bundle, embedded_dataset: Dataset, tmp_path: Path
) -> None:
    report = evaluate(embedded_bundle, embedded_dataset, open_encoder(None, embedded_bundle), shots=(0, 3, 12))
    for row, shots in enumerate((0, 3, 12)):
        seen = through_a_client(embedded_bundle, embedded_dataset, report.user_ids, shots, tmp_path)
        assert seen == pytest.approx(report.per_user[row].tolist(), abs=1e-6)
    assert report.at(12).accuracy > report.at(0).accuracy + 0.1
    assert report.at(12).control is not None
    assert report.at(12).accuracy > report.at(12).control + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1, 5], ids=["thumbs", "ratings"])
@pytest.mark.parametrize("per_prompt", [1, 3])
def test_evaluation_of_ratings_is_what_a_host_sees(
    embedded_bundle: Bundle, embedded_dataset: Dataset, scale: int, per_prompt: int
) -> None:
    """Ratings of a few responses to each prompt; those of one prompt meet, and each meets the threshold."""
    rng = np.random.default_rng(0)
    items = [
        Item(f"prompt {n // per_prompt}", item.text, item.embedding) for n, item in enumerate(embedded_dataset.items)
    ]
    user, item = np.divmod(np.arange(len(embedded_dataset.user_ids) * 20), 20)
    value = rng.integers(1, scale + 1, len(user)) * (rng.choice([-1, 1], len(user)) if scale == 1 else 1)
    ratings = Ratings(user, item, value.astype(float), np.full(len(user), SUPPORT))
    data = replace(embedded_dataset, items=items, ratings=ratings)
    judged, encoder = from_ratings(data, alone=True), open_encoder(None, embedded_bundle)
    report = evaluate(embedded_bundle, judged, encoder, shots=(0, len(judged)))
    seen, losses = [], []
    with Client("sqlite://", bundle=embedded_bundle) as client:
        client.record_many(feedback for feedback in data.feedback() if isinstance(feedback, Rating))
        for name in report.user_ids:
            rows = (data.user == data.user_ids.index(name)) & (data.phase == QUERY) & ~data.tie
            reward = client.personalize(name)
            assert reward.counted.ratings_alone > 0
            assert reward.covariance is not None
            chosen, rejected = (
                embedded_bundle.base_rewards(np.array([items[i].embedding for i in side[rows]], np.float32)).astype(
                    float
                )
                for side in (data.chosen, data.rejected)
            )
            z = chosen - rejected
            margin = z @ reward.weights
            seen.append(float(np.mean(margin > 0)))
            cautious = margin / np.sqrt(1 + np.pi / 8 * ((z @ reward.covariance) * z).sum(1))
            losses.append(float(np.mean(np.logaddexp(0, -cautious))))
    assert seen == pytest.approx(report.per_user[1].tolist())
    assert np.mean(losses) == pytest.approx(report.points[1].loss, abs=1e-6)
    # What a client does with single thumbs is more than nothing.
    pairs_alone = None if per_prompt == 1 else evaluate(embedded_bundle, from_ratings(data), encoder, shots=(10_000,))
    assert report.points[1].loss != pytest.approx((pairs_alone or report).points[0].loss, abs=1e-4)


@pytest.mark.shared
def test_evaluation_is_what_a_host_sees_on_real_people(jester: Finished, tmp_path: Path) -> None:
    bundle, dataset = Bundle(jester.folder / "bundle"), read_dataset(SHARED / "jester" / "unseen")
    report = evaluate(bundle, dataset, open_encoder(None, bundle), shots=(10, 60))
    some = slice(0, None, 80)
    for row, shots in enumerate((10, 60)):
        seen = through_a_client(bundle, dataset, report.user_ids[some], shots, tmp_path)
        # A score is rounded to float32, so that a pair within 1e-7 of equality may count otherwise.
        assert seen == pytest.approx(report.per_user[row][some].tolist(), abs=1 / 60 + 1e-9)
        assert np.mean(seen) == pytest.approx(report.per_user[row][some].mean(), abs=1e-3)


@pytest.mark.shared
def test_real_people_are_personalized(jester: Finished, tmp_path: Path) -> None:
    run = mrm("evaluate", jester.folder / "bundle", SHARED / "jester" / "unseen", "--json", tmp_path / "r.json")
    assert run.code == 0, run.err
    report = json.loads((tmp_path / "r.json").read_text())
    results = {point["shots"]: point for point in report["results"]}
    assert report["users"] == 799
    assert results[0]["accuracy"] >= 0.645
    assert results[10]["accuracy"] >= 0.662
    assert results[60]["accuracy"] >= 0.678
    assert results[60]["control"] < results[0]["accuracy"] - 0.02
    assert report["population"]["accuracy"] <= results[0]["accuracy"] + 0.003


@pytest.mark.slow
@pytest.mark.shared
def test_another_source_goes_through_the_same_commands(four_questions: Path, tmp_path: Path) -> None:
    data = four_questions / "train"
    run = mrm("train", data, "--out", tmp_path / "b")
    assert run.code == 0, run.err
    run = mrm("evaluate", tmp_path / "b", data, "--shots", "0,5", "--json", tmp_path / "r.json")
    assert run.code == 0, run.err
    zero, five = json.loads((tmp_path / "r.json").read_text())["results"]
    assert 0.5 < zero["accuracy"] < five["accuracy"]  # on the training users themselves: only that it runs


@pytest.fixture
def report(embedded_bundle: Bundle, embedded_dataset: Dataset) -> Report:
    return evaluate(embedded_bundle, embedded_dataset, open_encoder(None, embedded_bundle), shots=(12, 0, 3, 3))


def test_shots_are_sorted_and_more_than_there_are_means_all(report: Report, embedded_bundle: Bundle) -> None:
    assert [point.shots for point in report.points] == [0, 3, 12]
    assert report.at(0).control == report.at(0).accuracy


def test_one_user_has_no_control(embedded_bundle: Bundle, tmp_path: Path) -> None:
    data = read_dataset(write_embedded_dataset(tmp_path / "d", users=1))
    point = evaluate(embedded_bundle, data, open_encoder(None, embedded_bundle), shots=[5]).at(5)
    assert point.control is None
    assert 0 <= point.accuracy <= 1


@pytest.mark.slow
def test_report_as_table_picture_and_page(report: Report, tmp_path: Path) -> None:
    text = evaluation_table(report)
    assert f"{report.at(12).accuracy:.4f}" in text
    assert max(map(len, text.splitlines())) <= 80
    svg = evaluation_figure(report, "A title & more")
    assert svg.count("<svg") == 1
    html = evaluation_page(report, "A title & more", svg)
    assert_self_contained(html)
    assert html.count("<svg") == 2  # shots curve and reliability diagram
    assert "<title>A title &amp; more</title>" in html
    for value in (report.at(12).worst_half, report.at(12).flipped, report.at(3).control):
        assert f">{value:.1%}</td>" in html
    gain = report.at(12).gain
    assert f">{100 * gain.difference:+.1f} ({100 * gain.low:+.1f} … {100 * gain.high:+.1f})" in html
    assert report.bundle["fingerprint"] in html
    paths = save_evaluation(report, tmp_path / "new" / "folder", "t")
    assert [path.name for path in paths] == ["accuracy.svg", "accuracy.html"]
    assert paths[0].read_text() == evaluation_figure(report, "t")
    with pytest.raises(OutputError, match="Choose another place"):
        save_evaluation(report, paths[0], "t")


def test_report_as_json(report: Report) -> None:
    found = json.loads(json.dumps(report.as_json()))
    assert [point["shots"] for point in found["results"]] == [0, 3, 12]
    assert found["results"][2]["gain"]["difference"] == pytest.approx(report.at(12).accuracy - report.at(0).accuracy)
    assert found["doubts"] == []
    bins = found["reliability"]["bins"]
    assert sum(entry["share"] for entry in bins) == pytest.approx(1)
    assert sum(entry["share"] * entry["accuracy"] for entry in bins) == pytest.approx(report.at(12).accuracy)
    error = sum(entry["share"] * abs(entry["accuracy"] - entry["confidence"]) for entry in bins)
    assert error == pytest.approx(report.at(12).ece)
    assert all(entry["from"] <= entry["confidence"] <= entry["to"] for entry in bins)
    assert "u3" not in json.dumps(found)  # no user is named


def test_what_cannot_be_evaluated(embedded_bundle: Bundle, embedded_dataset: Dataset, tmp_path: Path) -> None:
    encoder = open_encoder(None, embedded_bundle)
    with pytest.raises(ConfigurationError, match="0 or more"):
        evaluate(embedded_bundle, embedded_dataset, encoder, shots=[-1])
    ties = replace(embedded_dataset, tie=np.ones(len(embedded_dataset), bool))
    with pytest.raises(DatasetError, match="not a tie"):
        evaluate(embedded_bundle, ties, encoder)
    wide = read_dataset(write_embedded_dataset(tmp_path / "d", dimension=7))
    with pytest.raises(BundleMismatchError, match="7 numbers"):
        evaluate(embedded_bundle, wide, encoder)
