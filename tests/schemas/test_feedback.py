"""Ratings, thumbs and rankings as a host hands them in: refused where wrong, frozen where right."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrm_sdk.data.datasets import read_dataset
from mrm_sdk.errors import EmbeddingError, InvalidInputError
from mrm_sdk.schemas.feedback import Comparison, Ranking, Rating, Thumb
from mrm_sdk.schemas.items import Message, Response
from mrm_sdk.storage.events import event_of

SECRET = "s3cret-word"
KINDS: dict[type, dict[str, Any]] = {
    Rating: {"user_id": "ada", "response": "yes", "value": 4},
    Thumb: {"user_id": "ada", "response": "yes", "up": True},
    Ranking: {"user_id": "ada", "responses": ["yes", "no", "maybe"]},
}
BAD: list[tuple[type, dict[str, Any], str]] = [
    (Rating, {"value": float("nan")}, "finite"),
    (Rating, {"value": float("inf")}, "finite"),
    (Rating, {"value": 10**400}, "number"),
    (Rating, {"value": SECRET}, "number"),
    (Rating, {"value": None}, "number"),
    (Rating, {"value": True}, "expected a number; a thumb up or down is a Thumb"),
    (Rating, {"response": 7}, "not int"),
    (Rating, {"stars": 5}, "there is no stars"),
    (Rating, {"ratting": 5}, "there is no ratting; did you mean rating?"),
    (Rating, {"rating": 5}, "give value or rating, not both"),
    (Thumb, {"thumb": "up"}, "give up or thumb, not both"),
    (Thumb, {"up": SECRET}, "up"),
    (Ranking, {"ranking": ["a", "b"]}, "give responses or ranking, not both"),
    (Ranking, {"respones": ["a", "b"]}, "there is no respones; did you mean responses?"),
    (Thumb, {"thumbs": True}, "there is no thumbs; did you mean thumb?"),
    (Thumb, {"promt": SECRET}, "there is no promt; did you mean prompt?"),
    (Thumb, {"response": {"txt": SECRET}}, "response: Invalid Response: there is no txt; did you mean text?"),
    (Thumb, {"up": 7}, "up"),
    (Thumb, {"up": None}, "up"),
    (Thumb, {"value": 1}, "value"),
    (Ranking, {"responses": []}, "2 to 50 responses"),
    (Ranking, {"responses": ["yes"]}, "2 to 50 responses"),
    (Ranking, {"responses": [f"{n}" for n in range(51)]}, "2 to 50 responses"),
    (Ranking, {"responses": dict.fromkeys(["yes", "no"]).keys()}, "best first"),
    (Ranking, {"responses": "yes"}, "expected a list"),
    (Ranking, {"responses": None}, "a list"),
    (Ranking, {"responses": ["yes", None]}, "responses.1"),
    (Ranking, {"responses": [SECRET, "no", SECRET]}, "at 0 and 2 are the same"),
    (Ranking, {"responses": ["no", Response(text="no")]}, "at 0 and 1 are the same"),
    (Ranking, {"event_id": "e" * 251}, "250 characters"),
]
BAD += [
    (kind, values, next(iter(values)))
    for kind in KINDS
    for values in ({"user_id": ""}, {"strength": 0}, {"strength": 101}, {"event_id": "e" * 256}, {"prompt": 7})
]


@pytest.mark.parametrize(("kind", "values", "word"), BAD, ids=lambda value: str(value)[:40])
def test_refused_without_saying_what_the_user_wrote(kind: type, values: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidInputError, match=kind.__name__) as caught:
        kind(**{**KINDS[kind], **values})
    assert word in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_what_they_have_in_common(kind: type) -> None:
    one, other = kind(**KINDS[kind]), kind(**KINDS[kind])
    assert one.event_id != other.event_id
    assert (one.prompt, one.strength) == (None, 1.0)
    assert one.created_at.tzinfo is not None
    assert pickle.loads(pickle.dumps(one)) == one
    assert copy.deepcopy(one) is one
    with pytest.raises(Exception, match="frozen"):
        one.user_id = "bob"
    asked = kind(**KINDS[kind], prompt=[{"role": "user", "content": "why?"}])
    assert asked.prompt == (Message(role="user", content="why?"),)
    for missing in KINDS[kind]:
        with pytest.raises(InvalidInputError, match=missing):
            kind(**{name: value for name, value in KINDS[kind].items() if name != missing})


def test_an_embedding_that_is_none() -> None:
    with pytest.raises(EmbeddingError):
        Rating(user_id="ada", response={"embedding": [float("nan")]}, value=1)


@pytest.mark.parametrize("value", [3, 3.0, np.float32(3), np.int64(3), "3"])
def test_values_of_any_kind(value: Any) -> None:
    assert Rating(user_id="ada", response="yes", value=value).value == 3.0


def test_the_data_sets_words_for_the_same() -> None:
    common: dict[str, Any] = {"user_id": "ada", "event_id": "e", "created_at": datetime(2026, 1, 1, tzinfo=UTC)}
    given: list[tuple[type, dict[str, Any], dict[str, Any]]] = [
        (Rating, {"response": "yes", "rating": 4}, {"response": "yes", "value": 4}),
        (Ranking, {"ranking": ["yes", "no"]}, {"responses": ["yes", "no"]}),
    ]
    for word, up in (("up", True), ("Down", False), ("true", True), (True, True), (False, False)):
        given += [(Thumb, {"response": "yes", name: word}, {"response": "yes", "up": up}) for name in ("thumb", "up")]
    for kind, theirs, ours in given:
        one = kind(**common, **theirs)
        assert one == kind(**common, **ours)
        assert pickle.loads(pickle.dumps(one)) == one == kind(**dict(one))
        assert kind.model_validate({**common, **theirs}) == one
    with pytest.raises(InvalidInputError, match="rating: expected a number; a thumb"):
        Rating(user_id="ada", response="yes", rating=True)


def test_a_row_of_a_data_set_makes_its_object(tmp_path: Path) -> None:
    """The same row, read from a file and handed to the class."""
    rows: dict[type, dict[str, Any]] = {
        Comparison: {"user_id": "ada", "prompt": "why?", "chosen": "so", "rejected": "not so", "strength": 2.0},
        Rating: {"user_id": "ada", "prompt": "why?", "response": "so", "rating": 4, "event_id": "r"},
        Thumb: {"user_id": "ada", "prompt": "why?", "response": "not so", "thumb": "down", "event_id": "t"},
    }
    (tmp_path / "comparisons.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows.values()))
    read = list(read_dataset(tmp_path).feedback())
    made = [kind(**row) for kind, row in rows.items()]
    for one, other in zip(read, made, strict=True):
        assert list(event_of(one).contents.values()) == list(event_of(other).contents.values())


def test_a_thumb_is_a_rating_of_one() -> None:
    for up, value in ((True, 1.0), (False, -1.0)):
        thumb = Thumb(user_id="ada", prompt="why?", response="so", up=up, strength=2)
        rating = thumb.as_rating()
        assert rating.value == value
        assert {**dict(thumb), "value": value} == {**dict(rating), "up": up}


@pytest.mark.parametrize("n", [2, 3, 10, 50])
def test_a_ranking_of_n_counts_as_n_minus_1_comparisons(n: int) -> None:
    responses = [Response(embedding=[float(place)]) for place in range(n)]
    ranking = Ranking(user_id="ada", prompt="why?", responses=responses, strength=3, event_id="e" * 250)
    comparisons = ranking.comparisons()
    assert len(comparisons) == ranking.pairs == n * (n - 1) // 2
    assert sum(comparison.strength for comparison in comparisons) == pytest.approx(3 * (n - 1))
    places = [(responses.index(c.chosen), responses.index(c.rejected)) for c in comparisons]  # type: ignore[arg-type]
    assert sorted(places) == [(better, worse) for better in range(n) for worse in range(better + 1, n)]
    assert len({c.event_id for c in comparisons}) == len(comparisons)
    assert comparisons[0].event_id == ranking.event_id
    for comparison in comparisons:
        assert (comparison.user_id, comparison.prompt, comparison.created_at) == ("ada", "why?", ranking.created_at)
        assert comparison.event_id.startswith(ranking.event_id)
        assert Comparison(**dict(comparison)) == comparison


def test_ids_are_bounded_in_bytes() -> None:
    assert Comparison(user_id="語" * 255, chosen="a", rejected="b").user_id
    with pytest.raises(InvalidInputError, match="at most 765 bytes"):
        Comparison(user_id="😀" * 255, chosen="a", rejected="b")
    with pytest.raises(InvalidInputError, match="at most 765 bytes"):
        Comparison(user_id="ada", event_id="😀" * 255, chosen="a", rejected="b")
