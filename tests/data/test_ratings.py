"""Ratings, thumbs and rankings beside comparisons, or instead of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.data.datasets import Ratings, read_dataset
from mrm_sdk.errors import DatasetError
from mrm_sdk.schemas.feedback import Ranking, Rating
from tests.conftest import SHARED, mrm
from tests.data.test_datasets import ROW, write_folder, write_lines

COMPARISONS = "user_id,phase,chosen,rejected\nu,support,a,b\n"


def rated(data: Any) -> list[tuple[str, str | None, float, int]]:
    ratings: Ratings = data.ratings
    columns = zip(ratings.user, ratings.item, ratings.value, ratings.phase, strict=True)
    return [(data.user_ids[u], data.items[i].text, float(v), int(p)) for u, i, v, p in columns]


def test_ratings_are_read_only_when_asked_for(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "d", COMPARISONS)
    (folder / "ratings.csv").write_text("user_id,item_id,rating,phase\nv,c,-2.5,\nu,a,4,query\n")
    plain, both = read_dataset(folder), read_dataset(folder, ratings=True)
    assert plain.ratings is None
    assert (plain.user_ids, len(plain.items)) == (["u"], 2)
    assert rated(both) == [("v", "text c", -2.5, -1), ("u", "text a", 4.0, QUERY)]
    assert (len(both), both.user_ids, both.describe()["ratings"]) == (1, ["u", "v"], 2)
    assert both.sha256 == plain.sha256


def test_a_folder_with_nothing_but_ratings(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "d", "")
    (folder / "comparisons.csv").unlink()
    rows = [{"user_id": u, "item_id": i, "rating": n} for u in "uvw" for n in range(2) for i in "abc"]
    write_lines(folder / "ratings.jsonl", rows)
    data = read_dataset(folder)
    assert (len(data), list(data.comparisons()), data.event_ids, len(data.user)) == (0, [], [], 0)
    phases: dict[tuple[str, str | None], set[int]] = {}
    for user, text, _, phase in rated(data):
        phases.setdefault((user, text), set()).add(phase)
    assert all(len(found) == 1 for found in phases.values())  # an item rated twice stays on one side
    for user in "uvw":
        assert Counter(p for (u, _), found in phases.items() if u == user for p in found) == {SUPPORT: 1, QUERY: 2}
    write_lines(folder / "ratings.jsonl", rows[::-1])
    again = {(user, text): phase for user, text, _, phase in rated(read_dataset(folder))}
    assert again == {pair: found.copy().pop() for pair, found in phases.items()}
    assert read_dataset(folder).sha256 != data.sha256


def test_thumbs_are_ratings_of_one(tmp_path: Path) -> None:
    said = [True, False, "up", "down"]
    rows = [{"user_id": "u", "prompt": "p", "response": f"r{n}", "thumb": thumb} for n, thumb in enumerate(said)]
    rows.append({"user_id": "u", "response": {"text": "r4"}, "rating": 0.5})
    data = read_dataset(write_lines(tmp_path / "a.jsonl", [ROW, *rows]))
    assert [(text, value) for _, text, value, _ in rated(data)] == [
        ("r0", 1), ("r1", -1), ("r2", 1), ("r3", -1), ("r4", 0.5),
    ]  # fmt: skip
    assert [item.prompt for item in data.items] == ["p"] * 6 + [None]


def test_ratings_are_handed_out_as_a_client_records_them(tmp_path: Path) -> None:
    rows = [
        {"user_id": "u", "prompt": "p", "response": "r", "rating": 3, "event_id": "e",
         "created_at": "2026-01-02T03:04Z"},
        {"user_id": "u", "prompt": "p", "response": "r", "rating": 3},
        {"user_id": "u", "prompt": "p", "response": "r", "rating": 3},
    ]  # fmt: skip
    data = read_dataset(write_lines(tmp_path / "a.jsonl", [ROW, *rows]))
    comparison, first, *others = data.feedback()
    assert comparison == next(data.comparisons()).model_copy(update={"created_at": comparison.created_at})
    assert isinstance(first, Rating)
    assert (first.user_id, first.prompt, first.value, first.event_id) == ("u", "p", 3.0, "e")
    assert (first.response.text, first.created_at.year) == ("r", 2026)  # type: ignore[union-attr]
    assert [other.event_id[-2:] for other in others] == ["-2", "-3"]
    again = list(read_dataset(tmp_path / "a.jsonl").feedback())
    assert [judged.event_id for judged in again] == [comparison.event_id, "e", *(other.event_id for other in others)]
    with pytest.raises(DatasetError, match="'e' appears twice"):
        read_dataset(write_lines(tmp_path / "a.jsonl", [{**ROW, "event_id": "e"}, rows[0]]))


@pytest.mark.slow
def test_ratings_are_imported_where_there_are_no_comparisons(tmp_path: Path) -> None:
    rows = [{"user_id": "u", "prompt": "p", "response": f"r{n}", "rating": n} for n in range(3)]
    path = write_lines(tmp_path / "a.jsonl", rows)
    for wanted in (["accepted", "3"], ["accepted", "0"]):
        done = mrm("import", path, "--database", f"sqlite:///{tmp_path}/m.db")
        assert (done.code, done.out.split()[:2]) == (0, wanted), done.err


def test_rankings_are_all_their_pairs(tmp_path: Path) -> None:
    row = {"user_id": "u", "prompt": "p", "ranking": ["a", "b", "c", "d"], "event_id": "e"}
    data = read_dataset(write_lines(tmp_path / "a.jsonl", [row, {**row, "event_id": "f", "ranking": ["c", "a"]}]))
    ours = list(data.comparisons())
    ranking = Ranking(user_id="u", prompt="p", responses=row["ranking"], event_id="e")
    for got, wanted in zip(ours[:6], ranking.comparisons(), strict=True):
        assert (got.chosen.text, got.rejected.text) == (wanted.chosen, wanted.rejected)  # type: ignore[union-attr]
        assert (got.event_id, got.strength) == (wanted.event_id, wanted.strength)
    assert (ours[6].strength, len(ours)) == (1.0, 7)
    assert len(set(data.phase[:6].tolist())) == 1  # one judgement, one side
    assert data.phase[0] != data.phase[6]


def test_strengths_are_those_of_a_client(tmp_path: Path) -> None:
    said = {"user_id": "u", "strength": 3}
    rows = [{**said, "ranking": ["a", "b", "c", "d"]}, {**said, "response": "a", "rating": 1},
            {**said, "response": "b", "thumb": True}, {"user_id": "u", "response": "c", "rating": 1}]  # fmt: skip
    recorded = list(read_dataset(write_lines(tmp_path / "a.jsonl", rows)).feedback())
    assert [event.strength for event in recorded] == [1.5] * 6 + [3, 3, 1]


def test_groups_are_never_split(tmp_path: Path) -> None:
    rows = [{**ROW, "chosen": f"{g}{n}", "group": f"g{g}"} for g in range(6) for n in range(g + 1)]
    data = read_dataset(write_lines(tmp_path / "a.jsonl", rows))
    sides = [{int(p) for p, row in zip(data.phase, rows, strict=True) if row["group"] == f"g{g}"} for g in range(6)]
    assert all(len(side) == 1 for side in sides)
    assert Counter(side.pop() for side in sides) == {SUPPORT: 3, QUERY: 3}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"user_id": "u", "response": "r", "rating": "many"}, "line 1: rating must be a finite number"),
    ({"user_id": "u", "response": "r", "rating": float("inf")}, "line 1: rating must be a finite number"),
    ({"user_id": "u", "response": "r", "rating": True}, "line 1: rating must be a finite number"),
    ({"user_id": "u", "response": "r", "thumb": "sideways"}, "line 1: thumb must be"),
    ({"user_id": "u", "response": "r", "thumb": 1}, "line 1: thumb must be"),
    ({"user_id": "u", "rating": 1}, "line 1: 'response' missing"),
    ({"response": "r", "rating": 1}, "line 1: user_id must be a text"),
    ({"user_id": "u", "response": 7, "rating": 1}, "line 1: Invalid response: expected a text"),
    ({"user_id": "u", "response": "r", "rating": 1, "phase": "late"}, "line 1: phase must be"),
    ({"user_id": "u", "response": "r", "rating": 1, "event_id": ""}, "line 1: event_id must be a text"),
    ({"user_id": "u", "response": "r", "rating": 1, "created_at": "soon"}, "line 1: .*created_at"),
    ({"user_id": "u", "response": "r", "rating": 1, "strength": 0}, "line 1: .*strength"),
    ({"user_id": "u", "ranking": ["a", "b"], "strength": 101}, "line 1: .*strength"),
    ({"user_id": "u", "ranking": ["a"]}, "line 1: ranking must be a list of 2 to 50"),
    ({"user_id": "u", "ranking": ["a", "b", "a"]}, "line 1: ranking names a response twice"),
    ({"user_id": "u", "ranking": ["a", 3]}, "line 1: .*rejected"),
    ({"user_id": "u", "ranking": "ab"}, "line 1: ranking must be a list"),
]


@pytest.mark.parametrize(("row", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_rows_are_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_dataset(write_lines(tmp_path / "a.jsonl", [row]))


def test_bad_tables_of_ratings(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "d", COMPARISONS)
    for text, message in (
        ("user_id,item_id,rating\nu,zz,1\n", "line 2: item_id: unknown item id 'zz'"),
        ("user_id,item_id,rating\nu,a,\n", "line 2: rating must be a finite number"),
        ("user_id,rating\nu,1\n", "line 1: no column item_id; found: user_id, rating"),
    ):
        (folder / "ratings.csv").write_text(text)
        with pytest.raises(DatasetError, match=message):
            read_dataset(folder, ratings=True)
    (folder / "ratings.jsonl").write_text("")
    with pytest.raises(DatasetError, match="it holds 2 of them"):
        read_dataset(folder, ratings=True)
    (folder / "ratings.jsonl").unlink()
    (folder / "comparisons.csv").unlink()
    (folder / "items.jsonl").unlink()
    with pytest.raises(DatasetError, match=r"names items by id, there is no items\.jsonl beside it"):
        read_dataset(folder)


@pytest.mark.slow
@pytest.mark.shared
def test_real_ratings_agree_with_the_comparisons_made_of_them() -> None:
    data = read_dataset(SHARED / "jester" / "unseen", ratings=True)
    ratings = data.ratings
    assert ratings is not None
    value = dict(zip(zip(ratings.user.tolist(), ratings.item.tolist(), strict=True), ratings.value, strict=True))
    margins = [
        value[user, chosen] - value[user, rejected]
        for user, chosen, rejected in zip(data.user.tolist(), data.chosen.tolist(), data.rejected.tolist(), strict=True)
    ]
    assert min(margins) >= 1 - 1e-9
    assert json.loads(json.dumps(data.describe()))["ratings"] == len(ratings)
