"""The public objects as bodies and answers of a FastAPI application, and the example of one."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from mrm_sdk import Bundle, Comparison, Ranking, Rating, Settings, Thumb
from tests.conftest import ROOT
from tests.schemas.test_json import GIVEN

A, B = ({"text": text, "embedding": [n, 2, 3, 4, 5, 6 - n]} for n, text in ((1, "yes"), (6, "no")))
SECRET = "s3cret-word"


@contextmanager
def served(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """The example."""
    monkeypatch.setenv("MRM_BUNDLE", str(bundle.path))
    monkeypatch.setenv("MRM_DATABASE", "sqlite://")
    spec = importlib.util.spec_from_file_location("fastapi_app", ROOT / "examples" / "fastapi_app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with TestClient(module.app) as client:
        yield client


@pytest.fixture
def app(embedded_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    with served(embedded_bundle, monkeypatch) as client:
        yield client


def schemas_of(app: TestClient) -> dict[str, object]:
    answer = app.get("/openapi.json")
    assert answer.status_code == 200
    schemas: dict[str, object] = answer.json()["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    return schemas


def test_the_example(app: TestClient) -> None:
    assert {"Comparison", "Thumb", "ChatMessage", "Message", "Recorded", "Forgotten", "UserReward"} <= set(
        schemas_of(app)
    )
    compared = {"user_id": "ada", "chosen": A, "rejected": B, "event_id": "e"}
    assert app.post("/comparisons", json=compared).json() == {"accepted": 1, "duplicates": 0, "rejected": []}
    assert app.post("/comparisons", json=compared).json()["duplicates"] == 1
    assert app.post("/thumbs", json={"user_id": "ada", "response": A, "thumb": "up"}).json()["accepted"] == 1
    reward = app.get("/users/ada").json()
    assert len(reward["weights"]) == len(reward["covariance"]) == 3
    assert reward["comparisons"] == 2
    assert app.delete("/users/ada").json()["rows"]["mrm_comparisons"] == 1


def test_the_example_refuses_without_repeating(app: TestClient) -> None:
    for body in (
        {"user_id": "ada", "chosen": SECRET, "rejected": SECRET},
        {"user_id": "ada", "chosen": SECRET},
        {"user_id": "ada", "chosen": {"text": SECRET, "embedding": [float("nan")]}, "rejected": A},
        {"user_id": "ada", "chosen": A, "rejected": B, "prompt": [{"role": "user", "text": SECRET}]},
        {"user_id": "ada", "chosen": A, "rejected": {"text": SECRET, "embedding": [1, 2]}},  # not the bundle's D
    ):
        answer = app.post("/comparisons", content=json.dumps(body))
        assert answer.status_code == 422, body
        assert answer.json()["detail"]
        assert SECRET not in answer.text


def test_the_example_ranks(text_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(text_bundle, monkeypatch) as client:
        answer = client.post("/users/ada/rank", json={"prompt": "Should I?", "answers": ["Yes.", "It may depend."]})
        assert sorted(ranked["response"] for ranked in answer.json()) == ["It may depend.", "Yes."]
        assert client.post("/users/ada/rank", json={"prompt": "a\0b", "answers": ["Yes."]}).status_code == 422


BODIES = [
    given
    for given in GIVEN
    if not isinstance(given, Settings) and not isinstance(getattr(given, "response", None), list)
]


@pytest.mark.parametrize("given", BODIES, ids=lambda given: type(given).__name__)
def test_each_is_a_body_and_an_answer(given: BaseModel) -> None:
    app, kind = FastAPI(), type(given)

    def echo(body: object) -> object:
        return body

    echo.__annotations__ = {"body": kind, "return": kind}
    app.post("/echo")(echo)
    client = TestClient(app)
    assert kind.__name__.translate(str.maketrans("[]", "__")) in {name.split("-")[0] for name in schemas_of(client)}
    answer = client.post("/echo", json=given.model_dump(mode="json"))
    assert answer.status_code == 200, answer.text
    assert kind.model_validate_json(answer.content) == given


def test_a_body_of_any_kind() -> None:
    app = FastAPI()

    @app.post("/feedback")
    def record(feedback: Comparison | Rating | Thumb | Ranking) -> str:
        return type(feedback).__name__

    client = TestClient(app)
    schemas_of(client)
    chat = [{"role": "user", "content": "hi"}]
    for name, body in {
        "Comparison": {"chosen": A, "rejected": "no", "prompt": chat},
        "Rating": {"response": A, "rating": 4},
        "Thumb": {"response": [{"role": "assistant", "content": "yes"}], "thumb": "down"},
        "Ranking": {"ranking": [A, B, "maybe"]},
    }.items():
        answer = client.post("/feedback", json={"user_id": "ada", **body})
        assert answer.json() == name, answer.text
    assert client.post("/feedback", json={"user_id": "ada", "stars": 4}).status_code == 422
