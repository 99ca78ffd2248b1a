"""Public objects as JSON: their schemas are valid and true, and nothing is lost on the way."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, TypeAdapter, ValidationError

import mrm_sdk
from mrm_sdk import (
    Comparison,
    Counted,
    Forgotten,
    Message,
    Pruned,
    Ranked,
    Ranking,
    Rating,
    Rebuilt,
    Recorded,
    Refusal,
    Response,
    ScoreRequest,
    Settings,
    Thumb,
    UserReward,
    UserSummary,
    WeightsSummary,
)

CHAT = [
    {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
    {"role": "user", "name": "ann", "content": "Weather?"},
    {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "1", "content": "rain"},
]
COUNTED = Counted(comparisons=1, rating_pairs=2, ratings_alone=3)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
VECTOR = {"text": "yes", "embedding": [0.1, -2.5]}
COMMON = {"user_id": "ada", "event_id": "e", "created_at": "2026-01-02T03:04:05.000006Z", "strength": 2.0}
TAKEN: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (Message, {"role": "user", "content": "hi"}),
    (Response, {"text": "yes"}),
    (Response, VECTOR),
    (Comparison, {**COMMON, "prompt": None, "chosen": "yes", "rejected": VECTOR, "tie": True}),
    (Comparison, {**COMMON, "prompt": CHAT, "chosen": [{"role": "assistant", "content": "a"}], "rejected": CHAT[3]}),
    (Rating, {**COMMON, "prompt": "why?", "response": VECTOR, "value": 4}),
    (Thumb, {**COMMON, "prompt": CHAT, "response": "yes", "up": False}),
    (Thumb, {**COMMON, "response": "yes", "up": "up"}),
    (Ranking, {**COMMON, "prompt": "why?", "responses": ["yes", VECTOR, [{"role": "assistant", "content": "a"}]]}),
    (ScoreRequest, {"user_id": "ada", "responses": ["yes", VECTOR, CHAT[3]], "prompt": CHAT}),
    (Settings, {"half_life": "90d", "encoder_cache": "vectors.db", "threads": 2}),
]
GIVEN: list[BaseModel] = [
    *(kind(**values) for kind, values in TAKEN),
    Recorded(accepted=1, duplicates=0, rejected=(Refusal(3, "why"),)),
    Ranked(index=0, score=1.5, response="yes"),
    Ranked(index=0, score=1.5, response=Response(**VECTOR)),
    Ranked[str](index=0, score=1.5, response="yes"),
    Ranked[Response](index=0, score=1.5, response=Response(**VECTOR)),
    Ranked(index=0, score=1.5, response=[{"role": "assistant", "content": "yes"}]),  # type: ignore[arg-type]
    Forgotten(user_id="ada", rows={"mrm_users": 1}),
    UserReward(
        user_id="a", weights=[1, 0.1], covariance=None, comparisons=1, counted=COUNTED, revision=1, fingerprint="f"
    ),
    UserReward(
        user_id="a",
        weights=[1, 0.1],
        covariance=[[1, 0], [0, 0.1]],
        comparisons=1,
        counted=COUNTED,
        revision=1,
        fingerprint="",
    ),
    Rebuilt(items=1, comparisons=2, users=3),
    Pruned(before=LONG_AGO, rows={"mrm_users": 1}),
    COUNTED,
    WeightsSummary(judgements=3, counted=COUNTED, revision=2, current=True),
    UserSummary(
        user_id="ada",
        comparisons=2,
        ties=1,
        ratings=1,
        first_at=LONG_AGO,
        newest_at=LONG_AGO,
        forgotten_at=None,
        weights={"f": WeightsSummary(judgements=3, counted=None, revision=2, current=False)},
    ),
]
PUBLIC = [
    value
    for value in (getattr(mrm_sdk, name) for name in mrm_sdk.__all__)
    if isinstance(value, type) and issubclass(value, BaseModel)
]
Mode = Literal["validation", "serialization"]


def valid(schema: dict[str, Any], value: object) -> bool:
    return Draft202012Validator(schema).is_valid(value)


def test_all_of_them_are_tested_here() -> None:
    tested = {type(value).__name__.split("[")[0] for value in GIVEN}
    assert tested == {kind.__name__ for kind in PUBLIC}


@pytest.mark.parametrize("mode", ["validation", "serialization"])
@pytest.mark.parametrize("kind", [*PUBLIC, Ranked[str], Ranked[Response]], ids=lambda kind: kind.__name__)
def test_schemas_are_valid(kind: type[BaseModel], mode: Mode) -> None:
    schema = kind.model_json_schema(mode=mode)
    Draft202012Validator.check_schema(schema)
    assert schema["title"] == kind.__name__
    assert not valid(schema, {"surprise": 1})
    if kind is not Settings:  # its docstring is what a person reads; the others' becomes part of a host's API
        assert ">>>" not in json.dumps(schema)
        assert "Args:" not in json.dumps(schema)


@pytest.mark.parametrize(("kind", "values"), TAKEN, ids=[f"{kind.__name__}{n}" for n, (kind, _) in enumerate(TAKEN)])
def test_what_is_taken_fits_its_schema(kind: type[BaseModel], values: dict[str, Any]) -> None:
    schema = kind.model_json_schema(mode="validation")
    assert valid(schema, values)
    assert kind.model_validate_json(json.dumps(values)) == kind.model_validate(values) == kind(**values)
    for name in schema.get("required", ()):
        assert not valid(schema, {key: value for key, value in values.items() if key != name})


@pytest.mark.parametrize("given", GIVEN, ids=lambda given: type(given).__name__)
def test_what_is_given_fits_its_schema_and_comes_back_whole(given: BaseModel) -> None:
    kind, written = type(given), given.model_dump_json()
    if not isinstance(getattr(given, "response", None), list):  # Ranked[list[…]] is the type of those
        assert valid(kind.model_json_schema(mode="serialization"), json.loads(written))
    assert kind.model_validate_json(written) == given
    assert kind.model_validate(json.loads(written)) == given
    assert kind.model_validate(given.model_dump()) == given
    assert TypeAdapter(list[kind]).validate_json(f"[{written}]") == [given]  # type: ignore[valid-type]


def test_ranked_is_the_same_whatever_its_parameter() -> None:
    plain, typed = Ranked(index=0, score=1.0, response="yes"), Ranked[str](index=0, score=1.0, response="yes")
    assert plain == typed
    assert hash(plain) == hash(typed)
    assert TypeAdapter(list[Ranked[str]]).validate_python([plain]) == [typed]
    given = [{"role": "assistant", "content": "yes"}]
    assert Ranked(index=0, score=1.0, response=given).response is given  # type: ignore[arg-type, comparison-overlap]
    with pytest.raises(ValidationError):
        Ranked[Response].model_validate({"index": 0, "score": 1.0, "response": "yes"})


def test_pydantics_own_errors_hold_no_text_of_users(tmp_path: Path) -> None:
    for value in ("s3cret-word", {"text": "s3cret-word", "score": 1}):
        with pytest.raises(ValidationError) as caught:
            Comparison.model_validate({"user_id": "ada", "chosen": value, "rejected": value})
        assert "s3cret-word" not in str(caught.value)
