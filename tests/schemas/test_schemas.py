"""What a host hands in: refused where it is wrong, frozen where it is right."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from mrm_sdk.errors import EmbeddingError, InvalidInputError, MrmError
from mrm_sdk.schemas.feedback import Comparison
from mrm_sdk.schemas.frozen import uuid7
from mrm_sdk.schemas.items import Item, Message, Response, prompt_text
from mrm_sdk.schemas.results import Counted, Forgotten, Ranked, Recorded, Refusal, UserReward

SECRET = "s3cret-word"
LONE = "\ud800"
NUL = "\0"


def comparison(**values: Any) -> Comparison:
    return Comparison(**{"user_id": "ada", "chosen": "yes", "rejected": "no", **values})


class TestResponse:
    @pytest.mark.parametrize(
        "values",
        [
            {},
            {"text": None, "embedding": None},
            {"text": 7},
            {"text": f"{SECRET}{LONE}"},
            {"text": f"{SECRET}{NUL}"},
            {"text": SECRET, "score": 1},
        ],
    )
    def test_refused(self, values: dict[str, Any]) -> None:
        with pytest.raises(InvalidInputError, match="Response") as caught:
            Response(**values)
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize(
        "embedding",
        [
            [],
            [[1.0]],
            1.0,
            [1.0, float("nan")],
            [float("-inf")],
            [1e39],  # infinity as float32
            SECRET,
            [SECRET],
            [[1.0], [1.0, 2.0]],
            [None],
            {"a": 1},
            [1j],
        ],
    )
    @pytest.mark.filterwarnings("ignore:overflow encountered in cast")
    def test_an_embedding_that_is_none(self, embedding: Any) -> None:
        with pytest.raises(EmbeddingError) as caught:
            Response(text=SECRET, embedding=embedding)
        assert SECRET not in str(caught.value)

    def test_an_embedding_too_large_gives_no_warning(self) -> None:
        with pytest.raises(EmbeddingError):
            Response(embedding=[1e39])

    @pytest.mark.parametrize("make", [list, tuple, np.array, lambda v: np.array(v, np.float16)])
    def test_embeddings_of_any_kind(self, make: Callable[[list[float]], Any]) -> None:
        embedding = Response(embedding=make([1.0, 2.0])).embedding
        assert embedding is not None
        assert (embedding.dtype, embedding.tolist()) == (np.float32, [1.0, 2.0])

    def test_an_embedding_is_the_responses_own(self) -> None:
        array = np.ones(3, np.float32)
        response = Response(embedding=array)
        array[:] = 7
        assert response == Response(embedding=[1, 1, 1])
        assert response.embedding is not None
        with pytest.raises(ValueError, match="read-only"):
            response.embedding[0] = 7

    def test_equality_and_hash_go_by_content(self) -> None:
        a, b = Response(text="x", embedding=[1, 2]), Response(text="x", embedding=np.array([1, 2]))
        assert a == b
        assert hash(a) == hash(b)
        different = [Response(text="x"), Response(text="y", embedding=[1, 2]), Response(text="x", embedding=[1, 3])]
        assert all(a != other for other in different)
        assert len({a, b, *different}) == 4
        assert a != "x"
        assert comparison(chosen=a, event_id="e", created_at=datetime(2026, 1, 1, tzinfo=UTC)) == comparison(
            chosen=b, event_id="e", created_at=datetime(2026, 1, 1, tzinfo=UTC)
        )

    def test_of(self) -> None:
        response = Response(text="x")
        assert Response.of(response) is response
        assert Response.of("x") == response
        for value in (None, 7, b"x", ["x"]):
            with pytest.raises(InvalidInputError):
                Response.of(value)  # type: ignore[arg-type]


class TestComparison:
    @pytest.mark.parametrize(
        "values",
        [
            {"user_id": ""},
            {"user_id": "u" * 256},
            {"user_id": None},
            {"user_id": 7},
            {"user_id": f"{SECRET}{LONE}"},
            {"user_id": f"{SECRET}{NUL}"},
            {"event_id": ""},
            {"event_id": "e" * 256},
            {"event_id": f"{SECRET}{NUL}"},
            {"event_id": f"{SECRET}{LONE}"},
            {"event_id": None},
            {"strength": 0},
            {"strength": -1},
            {"strength": float("inf")},
            {"strength": float("nan")},
            {"strength": 100.1},
            {"strength": SECRET},
            {"tie": SECRET},
            {"tie": None},
            {"created_at": datetime(2026, 1, 1)},  # without a zone: that is the point
            {"created_at": SECRET},
            {"chosen": None},
            {"chosen": 7},
            {"chosen": f"{SECRET}{LONE}"},
            {"rejected": f"{SECRET}{NUL}"},
            {"chosen": {"text": f"{SECRET}{LONE}"}},
            {"prompt": f"{SECRET}{LONE}"},
            {"prompt": f"{SECRET}{NUL}"},
            {"prompt": 7},
            {"prompt": [SECRET]},
            {"prompt": [{"role": SECRET}]},
            {"prompt": [{"role": "user", "content": SECRET + LONE}]},
            {"prompt": [{"role": "user", "content": SECRET, "nmae": SECRET}]},
            {"prompt": [{"role": "user", "content": [SECRET, 7]}]},
            {"chosen": SECRET, "rejected": SECRET},
            {"chosen": SECRET, "rejected": Response(text=SECRET), "tie": True},
            {"surprise": SECRET},
        ],
        ids=repr,
    )
    def test_refused_without_saying_what_the_user_wrote(self, values: dict[str, Any]) -> None:
        with pytest.raises(InvalidInputError, match="Invalid Comparison") as caught:
            comparison(**values)
        assert next(iter(values)) in str(caught.value)
        assert SECRET not in str(caught.value)
        # A log shows where an error came from, too.
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__

    @pytest.mark.parametrize("missing", ["user_id", "chosen", "rejected"])
    def test_what_must_be_given(self, missing: str) -> None:
        values = {"user_id": "ada", "chosen": "yes", "rejected": "no"}
        del values[missing]
        with pytest.raises(InvalidInputError, match=missing):
            Comparison(**values)

    @pytest.mark.parametrize("tie", [True, False])
    @pytest.mark.parametrize(
        "side", ["yes", Response(text="yes"), Response(embedding=[1.0]), Response(text="yes", embedding=[1.0])]
    )
    def test_two_sides_that_are_the_same(self, side: str | Response, tie: bool) -> None:
        for other in (side, Response.of(side)):
            with pytest.raises(InvalidInputError, match="Comparison: chosen and rejected are the same response"):
                comparison(chosen=side, rejected=other, tie=tie)

    def test_two_sides_that_differ_in_one_part(self) -> None:
        sides = ["yes", Response(text="yes", embedding=[1.0]), Response(text="yes", embedding=[2.0])]
        sides += [Response(text="no", embedding=[1.0]), Response(embedding=[1.0])]
        for one, other in combinations(sides, 2):
            assert comparison(chosen=one, rejected=other).chosen == one

    def test_an_embedding_inside(self) -> None:
        with pytest.raises(EmbeddingError):
            comparison(chosen={"embedding": [float("nan")]})

    @pytest.mark.parametrize("side", ["chosen", "rejected"])
    def test_both_sides_may_be_anything_a_response_is(self, side: str) -> None:
        response = Response(text="x", embedding=[1.0])
        assert getattr(comparison(**{side: response}), side) == response

    def test_edges_that_are_allowed(self) -> None:
        c = comparison(user_id="ü" * 255, event_id="e" * 255, strength=100, chosen="")
        assert len(c.user_id) == len(c.event_id) == 255

    def test_defaults(self) -> None:
        before = datetime.now(UTC)
        a, b = comparison(), comparison()
        assert (a.prompt, a.tie, a.strength) == (None, False, 1.0)
        assert a.event_id != b.event_id
        assert uuid.UUID(a.event_id).version == 7
        assert before <= a.created_at <= b.created_at <= datetime.now(UTC)

    def test_a_time_keeps_its_instant(self) -> None:
        there = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=5)))
        assert comparison(created_at=there).created_at == datetime(2026, 1, 1, 7, tzinfo=UTC)

    @pytest.mark.parametrize("name", ["user_id", "chosen", "strength", "surprise"])
    def test_frozen(self, name: str) -> None:
        c = comparison()
        with pytest.raises(Exception, match="frozen"):
            setattr(c, name, "other")
        assert c.user_id == "ada"


class TestPrompt:
    def test_messages_become_text(self) -> None:
        messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi\nthere"}]
        text = "system: be kind\nuser: hi\nthere"
        assert prompt_text(messages) == prompt_text([Message(**m) for m in messages]) == prompt_text(text) == text
        assert prompt_text(None) is None
        assert prompt_text("") == prompt_text([]) == ""

    def test_a_comparison_and_a_call_mean_the_same(self) -> None:
        messages = [{"role": "user", "content": "hi"}]
        stored = comparison(prompt=messages)
        assert Item.of(stored.prompt, stored.chosen).key == Item.of(messages, "yes").key

    @pytest.mark.parametrize(
        "prompt",
        [7, object(), {"role": "user", "content": SECRET}, [SECRET], [{"role": "user"}], [None], f"{SECRET}{LONE}"],
    )
    def test_refused(self, prompt: Any) -> None:
        with pytest.raises(InvalidInputError) as caught:
            prompt_text(prompt)
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize("bad", [LONE, NUL])
    def test_characters_inside_of_messages(self, bad: str) -> None:
        with pytest.raises(InvalidInputError):
            prompt_text([{"role": "user", "content": SECRET + bad}])


class TestItem:
    def test_equal_content_is_the_same_item(self) -> None:
        assert Item.of("p", "x").key == Item.of("p", Response(text="x")).key
        items = [
            Item.of("p", "x"),
            Item.of(None, "x"),
            Item.of("", "x"),
            Item.of("x", "p"),
            Item.of("px", ""),
            Item.of("p", Response(text="x", embedding=[1.0])),
            Item.of("p", Response(embedding=[1.0])),
            Item.of("p", Response(embedding=[1.0, 0.0])),
        ]
        assert len({item.key for item in items}) == len(items)

    @pytest.mark.parametrize("text", [None, "", 'say "no" \\ \n\t\x7f\u2028', "é 日本 😀", "a" * 5000])
    def test_keys_are_hashes_of_json(self, text: str | None) -> None:
        for prompt in (None, text):
            wanted = hashlib.sha256(json.dumps([prompt, text]).encode()).digest()
            assert Item(prompt, text, None).key == wanted

    def test_keys_never_change(self) -> None:
        """Databases hold them: items would be stored and encoded anew, and known events would be conflicts."""
        chat = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi\nthere"}]
        assert Item.of("p", "x").key.hex() == "e30624ac29dc4eba80abd1dbba99439b7f16fb08c287b67cb7dcce74635110f2"
        item = Item.of(chat, Response(text="x", embedding=[0.5, -1]))
        assert item.key.hex() == "83a38fca0624f42a15da29d2b4814eabb2053561597724c3a2d0f00d8b4a9486"
        assert item.prompt_key.hex() == "519dd2d401d8e70909fc69ca18a745d1b87f5246e2d45df0f7be7e87bbe88a00"


class TestUuid7:
    def test_version_and_variant(self) -> None:
        for _ in range(200):
            value = uuid.UUID(uuid7())
            assert (value.version, value.variant) == (7, uuid.RFC_4122)

    def test_begins_with_the_time(self) -> None:
        before = time.time_ns() // 1_000_000
        values = [uuid7() for _ in range(2000)]
        after = time.time_ns() // 1_000_000
        assert len(set(values)) == len(values)
        stamps = [uuid.UUID(value).int >> 80 for value in values]
        assert stamps == sorted(stamps)
        assert before <= stamps[0] <= stamps[-1] <= after

    def test_sorts_as_text_by_millisecond(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values = []
        for millisecond in (1, 2, 255, 256, 1_700_000_000_000, 1_700_000_000_001):
            monkeypatch.setattr(time, "time_ns", lambda now=millisecond: now * 1_000_000)
            values.append(uuid7())
        assert values == sorted(values)


COUNTED = Counted(comparisons=1, rating_pairs=0, ratings_alone=0)
RESULTS = [
    Recorded(accepted=1, duplicates=0, rejected=(Refusal(3, "why"),)),
    Ranked(index=0, score=1.0, response="x"),
    Forgotten(user_id="ada", rows={"mrm_users": 1}),
    UserReward(
        user_id="ada",
        weights=[1.0, 2.0],
        covariance=[[1.0, 0.0], [0.0, 1.0]],
        comparisons=1,
        counted=COUNTED,
        revision=1,
        fingerprint="f",
    ),
    COUNTED,
]


@pytest.mark.parametrize("result", RESULTS, ids=lambda r: type(r).__name__)
def test_results_are_frozen(result: Any) -> None:
    for name in type(result).model_fields:
        with pytest.raises(Exception, match="frozen"):
            setattr(result, name, None)
        with pytest.raises(Exception, match="frozen"):
            delattr(result, name)


@pytest.mark.parametrize("result", RESULTS, ids=lambda r: type(r).__name__)
def test_results_compare_and_serialise(result: Any) -> None:
    assert result == result.model_copy(deep=True)
    assert type(result).model_validate_json(result.model_dump_json()) == result


def test_arrays_of_a_result_are_read_only_copies() -> None:
    weights = np.ones(2)
    reward = UserReward(
        user_id="u",
        weights=weights,
        covariance=np.eye(2),
        comparisons=1,
        counted=COUNTED,
        revision=1,
        fingerprint="f",
    )
    weights[:] = 7
    assert reward.weights.tolist() == [1, 1]
    for array in (reward.weights, reward.covariance):
        assert array is not None
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7


def test_errors_are_of_this_package_and_value_errors() -> None:
    with pytest.raises(MrmError):
        Response()
    with pytest.raises(ValueError, match="give text"):
        Response()


def test_a_refusal_unpacks() -> None:
    # The contract: rejected=[(index, reason), …].
    ((index, reason),) = RESULTS[0].rejected
    assert (index, reason) == (3, "why")
