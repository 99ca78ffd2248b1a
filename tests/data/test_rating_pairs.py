"""Ratings in place of support comparisons: exact pairs, nothing of the query, and the commands that use them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.data.datasets import Dataset, Ratings, read_dataset
from mrm_sdk.data.rating_pairs import from_ratings
from mrm_sdk.errors import DatasetError
from mrm_sdk.schemas.items import Item
from mrm_sdk.training.pipeline import train_bundle
from tests.conftest import mrm, write_embedded_dataset
from tests.training.people import FIXED, people, rows

NOT_STATED = -1


def rated(said: list[tuple[int, int, float, int]], *, base: Dataset | None = None, **extras: Any) -> Dataset:
    """Ratings (user, item, value, phase) beside comparisons, of 3 users without any by default."""
    base = rows(people(3), np.zeros(0, np.int64)) if base is None else base
    user, item, value, phase = (np.array(column) for column in zip(*said, strict=True))
    return replace(base, ratings=Ratings(user, item, value.astype(float), phase, **extras))


def pairs(data: Dataset, user: int = 0, phase: int = SUPPORT) -> dict[tuple[int, int], float]:
    mine = (data.user == user) & (data.phase == phase)
    columns = (data.chosen[mine], data.rejected[mine], data.strength[mine])
    return {(int(a), int(b)): float(s) for a, b, s in zip(*columns, strict=True)}


def test_ratings_become_weighted_pairs() -> None:
    data = from_ratings(rated([(0, 5, 1, SUPPORT), (0, 6, 2, SUPPORT), (0, 7, 4, SUPPORT), (1, 5, 3, SUPPORT)]))
    unit = float(np.std([1, 2, 4]))
    expected = {(6, 5): 2 / 3 * (1 / unit) ** 0.5, (7, 6): 2 / 3 * (2 / unit) ** 0.5, (7, 5): 2 / 3 * (3 / unit) ** 0.5}
    assert pairs(data) == pytest.approx(expected)
    assert not pairs(data, user=1)  # one rating compares nothing
    assert data.ratings is None
    assert not data.tie.any()
    assert len(set(data.event_ids)) == len(data.created_at) == len(data) == 3


def test_ratings_alone_meet_the_threshold_in_the_support() -> None:
    said = [(0, 5, 1, SUPPORT), (0, 6, -1, SUPPORT), (0, 7, 1, QUERY), (0, 8, -1, QUERY)]
    data = from_ratings(rated(said), alone=True)
    threshold = len(data.items)
    assert pairs(data) == pytest.approx({(5, 6): 1.0, (5, threshold): 0.5, (threshold, 6): 0.5} | {(5, 6): 2**0.5})
    assert pairs(data, phase=QUERY) == pytest.approx({(7, 8): 2**0.5})
    # A part of it keeps the threshold behind its own items.
    part = replace(data, embeddings=None).subset(np.arange(len(data)))
    assert len(part.items) == 4
    assert max(part.chosen.max(), part.rejected.max()) == 4


def test_one_thumb_per_prompt_is_support_enough() -> None:
    base = people(3)
    said = [(0, item, float(item % 2) or -1.0, SUPPORT) for item in range(3)]
    apart = replace(base, items=[Item(str(n), item.text, item.embedding) for n, item in enumerate(base.items)])
    assert len(pairs(from_ratings(rated(said, base=apart), alone=True))) == 3
    with pytest.raises(DatasetError, match="no support comparison"):
        from_ratings(rated(said, base=apart))


def test_only_ratings_of_one_prompt_meet_and_equal_ones_say_nothing() -> None:
    base = rows(people(3), np.zeros(0, np.int64))
    items = [Item(f"prompt {n // 2}", item.text, None) for n, item in enumerate(base.items)]
    said = [(0, item, value, SUPPORT) for item, value in ((0, 1.0), (1, 2.0), (2, 5.0), (3, 5.0))]
    data = from_ratings(rated(said, base=replace(base, items=items)))
    assert pairs(data) == pytest.approx({(1, 0): (1 / float(np.std([1, 2, 5, 5]))) ** 0.5})


def test_the_latest_rating_counts() -> None:
    said = [(0, 5, 9, SUPPORT), (0, 6, 2, SUPPORT), (0, 5, 1, SUPPORT)]
    assert list(pairs(from_ratings(rated(said)))) == [(6, 5)]
    early, late = (datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2))
    # Where the file says when, its order does not matter: as in a client's store.
    assert list(pairs(from_ratings(rated(said, created_at={0: late, 2: early})))) == [(5, 6)]
    assert list(pairs(from_ratings(rated(said, created_at={0: early, 2: late})))) == [(6, 5)]
    assert list(pairs(from_ratings(rated(said, created_at={0: late})))) == [(6, 5)]


def test_nothing_of_the_query_leaks() -> None:
    base = people(3)
    user_items = [(0, item) for item in range(40)]
    data = from_ratings(rated([(u, i, float(i % 7), NOT_STATED) for u, i in user_items], base=base))
    mine, query = data.user == 0, data.phase == QUERY
    judged = set(data.chosen[mine & query]) | set(data.rejected[mine & query])
    adapted = set(data.chosen[mine & ~query]) | set(data.rejected[mine & ~query])
    assert adapted
    assert not judged & adapted
    support = (base.user == 0) & (base.phase == SUPPORT)
    compared = {*base.chosen[base.user == 0], *base.rejected[base.user == 0]}
    assert adapted <= set(base.chosen[support]) | set(base.rejected[support]) | (set(range(40)) - compared)
    kept = base.phase == QUERY
    for name in ("user", "chosen", "rejected", "strength", "tie"):
        assert np.array_equal(getattr(data, name)[query], getattr(base, name)[kept])
    # Values of the query's items do not even set the scale.
    values = [(u, i, 1e3 if i in judged else float(i % 7), NOT_STATED) for u, i in user_items]
    assert pairs(from_ratings(rated(values, base=base))) == pairs(data)


def test_ratings_stated_as_query_are_left_out_where_comparisons_judge() -> None:
    said = [(0, 5, 1, SUPPORT), (0, 6, 2, SUPPORT), (0, 7, 1, QUERY), (0, 8, 9, QUERY)]
    assert list(pairs(from_ratings(rated(said, base=people(3))))) == [(6, 5)]
    alone = from_ratings(rated(said))
    assert (list(pairs(alone)), list(pairs(alone, phase=QUERY))) == ([(6, 5)], [(8, 7)])


def test_ratings_of_items_that_no_user_compared_are_support() -> None:
    base = people(3)
    base = base.subset(np.flatnonzero(base.user > 0))  # so the last user here compares others' items only
    base = replace(base, user_ids=[*base.user_ids, "new"])
    data = from_ratings(rated([(2, 5, 1, NOT_STATED), (2, 6, 2, NOT_STATED)], base=base))
    assert list(pairs(data, user=2)) == [(6, 5)]


def test_strengths_of_ratings_count() -> None:
    said = [(0, 5, 1, SUPPORT), (0, 6, 2, SUPPORT)]
    data = from_ratings(rated(said, strength=np.array([4.0, 9.0])))
    assert pairs(data)[6, 5] == pytest.approx(6 * pairs(from_ratings(rated(said)))[6, 5])


def test_ratings_that_give_no_support_are_told() -> None:
    base = people(3)
    judged = base.chosen[(base.user == 0) & (base.phase == QUERY)][:2]
    for said in (
        [(0, int(i), float(n), QUERY) for n, i in enumerate(judged)],
        [(0, 5, 3, SUPPORT), (0, 6, 3, SUPPORT)],
    ):
        with pytest.raises(DatasetError, match=r"give no support comparison: .* Add ratings"):
            from_ratings(rated(said, base=base))


def test_a_limit_keeps_the_total_weight() -> None:
    said = [(user, item, float((item * 7) % 31), SUPPORT) for user in (0, 1) for item in range(20)]
    whole, some = from_ratings(rated(said)), from_ratings(rated(said, base=None), limit=10)
    for user in (0, 1):
        assert len(pairs(whole, user)) > 100
        assert len(pairs(some, user)) == 10
        assert pairs(some, user).keys() <= pairs(whole, user).keys()
        assert sum(pairs(some, user).values()) == pytest.approx(sum(pairs(whole, user).values()))
    assert pairs(from_ratings(rated(said), limit=10)) == pairs(some)
    assert pairs(from_ratings(rated(said), limit=10, seed=1)) != pairs(some)


def test_no_ratings_are_told() -> None:
    with pytest.raises(DatasetError, match="no ratings"):
        from_ratings(people(3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Each user has rated what they compared in the support, and more."""
    folder = write_embedded_dataset(tmp_path / "d", users=10)
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    embeddings = np.array([item["embedding"] for item in items])
    rng = np.random.default_rng(0)
    lines = ["user_id,item_id,rating"]
    for user in range(10):
        values = embeddings @ rng.standard_normal(6)
        lines += [f"u{user},i{item},{value:.3f}" for item, value in enumerate(values)]
    (folder / "ratings.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_ratings_alone_can_be_learned_from(folder: Path, tmp_path: Path) -> None:
    (folder / "comparisons.csv").unlink()
    data = from_ratings(read_dataset(folder), limit=64)
    for user in range(10):
        support, query = ({item for pair in pairs(data, user, phase) for item in pair} for phase in (SUPPORT, QUERY))
        assert support
        assert query
        assert not support & query
    manifest = train_bundle(data, tmp_path / "b", config=FIXED)
    assert manifest.training["users_trained"] == 10


@pytest.mark.slow
def test_commands_learn_from_ratings_and_adapt_to_them(folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "c"
    run = mrm("train", folder, "--out", tmp_path / "b", "--feedback", "ratings", "--checkpoint", kept, "--json", "-")
    assert (run.code, run.err) == (0, "")
    comparisons = json.loads(run.out)["training"]["data"]["comparisons"]
    assert comparisons == len(from_ratings(read_dataset(folder, ratings=True), limit=64))
    # The same files, other feedback: another training.
    run = mrm("train", folder, "--out", tmp_path / "b2", "--checkpoint", kept)
    assert (run.code, "another training" in run.err) == (2, True)
    run = mrm("evaluate", tmp_path / "b", folder, "--feedback", "ratings", "--json", tmp_path / "r.json")
    assert (run.code, run.err) == (0, "")
    results = json.loads((tmp_path / "r.json").read_text())["results"]
    assert len(results) == 2
    assert results[0]["shots"] == 0 < results[1]["shots"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_no_such_feedback(command: str, folder: Path, embedded_bundle: Any, tmp_path: Path) -> None:
    arguments = [folder, "--out", tmp_path / "b"] if command == "train" else [embedded_bundle.path, folder]
    run = mrm(command, *arguments, "--feedback", "thumbs")
    assert run.code == 2
    assert run.err.startswith("error: --feedback is 'comparisons' or 'ratings', not 'thumbs'")


@pytest.mark.slow
def test_ratings_that_are_not_used_are_told(tmp_path: Path) -> None:
    said = [{"user_id": "u", "response": f"r{n}", "rating": n} for n in range(2)]
    row = {"user_id": "u", "chosen": "a", "rejected": "b"}
    path = tmp_path / "a.jsonl"
    for lines, message in (
        ([row, *said], "2 ratings are left out; train and evaluate use them with --feedback ratings"),
        (said, "It holds ratings only: use --feedback ratings."),
    ):
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        run = mrm("train", path, "--out", tmp_path / "b")
        assert (run.code, message in run.err) == (1, True)


@pytest.mark.slow
def test_feedback_that_is_not_there(embedded: Path, tmp_path: Path) -> None:
    run = mrm("train", embedded, "--out", tmp_path / "b", "--feedback", "ratings")
    assert (run.code, "no ratings" in run.err) == (1, True)
