"""A host's program as type checkers see it; not run: ``tests/test_types.py`` checks it with mypy and pyright.

What is documented passes under the strictest settings. What is wrong is an error: the checkers report an ignored error
that is none.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypedDict, assert_type

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, SecretStr

from mrm_sdk import (
    AsyncClient,
    Client,
    Comparison,
    Message,
    Ranked,
    Ranking,
    Rating,
    Recorded,
    Response,
    ScoreRequest,
    Settings,
    Thumb,
    UserReward,
    UserSummary,
    WeightsSummary,
)


class Turn(TypedDict):
    """A message, as a host types it."""

    role: Literal["user", "assistant"]
    content: str


class ToolTurn(TypedDict, total=False):
    """Another, as the openai client types it."""

    role: str
    content: str | None
    tool_calls: list[dict[str, object]]


class Written(BaseModel):
    """A message as an object."""

    role: str
    content: str | None


def comparisons(turns: list[Turn], either: list[Turn | ToolTurn], written: Written) -> list[Comparison]:
    """Everything that a prompt and its two responses may be."""
    plain: dict[str, str] = {"role": "user", "content": "hi"}
    sides: list[str] = ["yes", "no"]
    return [
        Comparison(user_id="ada", chosen="yes", rejected="no"),
        Comparison(user_id="ada", chosen="yes", rejected="no", prompt="hi"),
        Comparison(user_id="ada", chosen="yes", rejected="no", prompt=[{"role": "user", "content": "hi"}]),
        Comparison(
            user_id="ada", chosen="yes", rejected="no", prompt=[plain, written, Message(role="user", content="")]
        ),
        Comparison(user_id="ada", chosen="yes", rejected="no", prompt=turns),
        Comparison(user_id="ada", chosen="yes", rejected="no", prompt=either),
        Comparison(user_id="ada", chosen=turns[-1], rejected=written, prompt=turns[:-1]),
        Comparison(user_id="ada", chosen=[{"role": "assistant", "content": "yes"}], rejected=turns[-1:]),
        Comparison(
            user_id="ada",
            chosen=Response(text="yes", embedding=[1.0, 2.0]),
            rejected="no",
            tie=True,
            strength=2,
            event_id="click-17",
            created_at=datetime.now(UTC),
        ),
        *Ranking(user_id="ada", responses=sides).comparisons(),
    ]


def responses(floats: list[float], tensor: NDArray[np.float64], small: NDArray[np.float16]) -> list[Response]:
    """Everything that an embedding may be."""
    made = [
        Response(embedding=[1.0, 2.0]),
        Response(embedding=(1.0, 2.0)),
        Response(embedding=floats),
        Response(embedding=tensor),
        Response(embedding=small),
        Response(embedding=np.zeros(3)),
        Response(embedding=[np.float32(1), np.float32(2)]),
        Response(text="yes"),
        Response(embedding=np.arange(3)),
    ]
    assert_type(made[0].embedding, NDArray[np.float32] | None)
    assert_type(made[0].text, str | None)
    return made


def other_feedback(client: Client, written: Written) -> Recorded:
    """The other kinds of feedback, in the classes' words and in the data sets'."""
    rating = Rating(user_id="ada", response="yes", value=4)
    assert_type(rating.value, float)
    thumb = Thumb(user_id="ada", response=written, up=True)
    assert_type(thumb.up, bool)
    rating = Rating(user_id="ada", response="yes", rating=4.5, prompt="hi")
    thumb = Thumb(user_id="ada", response="yes", thumb="down")
    rankings = [
        Ranking(user_id="ada", responses=["yes", "no"]),
        Ranking(user_id="ada", responses=[Response(embedding=[1.0]), "no", written]),
        Ranking(user_id="ada", ranking=("yes", "no"), prompt=[{"role": "user", "content": "hi"}]),
    ]
    client.record(thumb.as_rating())
    client.record_many(rankings)
    return client.record_many([rating, thumb, *rankings])


def ranked(client: Client, answers: list[str], own: list[Response], turns: list[list[Turn]]) -> str:
    """A ranking gives back what it was given."""
    assert_type(client.rank("ada", answers), list[Ranked[str]])
    assert_type(client.rank("ada", own, prompt=turns[0]), list[Ranked[Response]])
    assert_type(client.rank("ada", turns)[0].response, list[Turn])
    assert_type(client.score("ada", [*answers, *own]), NDArray[np.float32])
    either: list[str | Response] = [*answers, *own]
    assert_type(client.rank("ada", either)[0].response, str | Response)
    anything: list[Ranked] = client.rank("ada", either)
    assert_type(anything[0].response, str | Response)
    best: Ranked[str | Response] = client.rank("ada", answers)[0]
    print(best.index + 1, best.score)
    return client.rank("ada", answers, prompt="hi")[0].response


def many(client: Client, answers: list[str], own: list[Response], turns: list[Turn]) -> list[NDArray[np.float32]]:
    """Many users and prompts in one call, each request in a form of its own."""
    assert_type(client.personalize_many(user for user in ("ada", "bob"))["ada"], UserReward)
    requests = [ScoreRequest(user_id="ada", responses=answers), ScoreRequest(user_id="b", responses=own, prompt=turns)]
    client.score_many(requests)
    return client.score_many([*requests, ("ada", answers), ("bob", own, "hi"), ("eve", [turns[-1], "yes"], turns)])


async def awaited(client: AsyncClient, answers: list[str], own: list[Response]) -> UserReward:
    """The awaited client has the same types."""
    assert_type(await client.rank("ada", answers), list[Ranked[str]])
    assert_type(await client.rank("ada", own), list[Ranked[Response]])
    assert_type(await client.score("ada", answers, prompt=[{"role": "user", "content": "hi"}]), NDArray[np.float32])
    assert_type(await client.export_user("ada"), dict[str, Any])
    pairs: list[tuple[str, list[str]]] = [("ada", answers)]
    assert_type(await client.score_many(pairs), list[NDArray[np.float32]])
    assert_type(await client.personalize_many({"ada", "bob"}), dict[str, UserReward])
    summary = await client.summary("ada")
    assert_type(summary, UserSummary)
    assert_type(summary.weights["fingerprint"], WeightsSummary)
    assert_type(await client.record(Thumb(user_id="ada", response="yes", up=True)), Recorded)
    reward = await client.personalize("ada")
    assert_type(reward.weights, NDArray[np.float64])
    assert_type(reward.covariance, NDArray[np.float64] | None)
    return reward


def settings() -> list[Settings]:
    """Settings in the words that the documentation uses."""
    made = Settings(half_life="90d", encoder_url="http://host", encoder_api_key="key", encoder_cache="vectors.db")
    assert_type(made.half_life, timedelta | None)
    assert_type(made.encoder_cache, Path | None)
    assert_type(made.encoder_api_key, SecretStr | None)
    return [
        made,
        Settings(half_life=timedelta(days=90), encoder_cache=Path("vectors.db"), providers="cuda", threads=2),
        Settings(half_life=0),
        Settings.serverless(pool_size=1, database_schema="rewards"),
    ]


def mistakes(client: Client) -> None:
    """Each of these lines is an error."""
    Comparison(user_id="ada", chosen="yes")  # type: ignore[call-arg]
    Comparison(user_id=7, chosen="yes", rejected="no")  # type: ignore[arg-type]
    Comparison(user_id="ada", chosen="yes", rejected="no", surprise=1)  # type: ignore[call-arg]
    Comparison(user_id="ada", chosen="yes", rejected="no", prompt=7)  # type: ignore[arg-type]
    Response(embedding="0.1")  # type: ignore[arg-type]
    Rating(user_id="ada", response="yes")  # type: ignore[call-overload]
    Rating(user_id="ada", response="yes", value=4, rating=4)  # type: ignore[call-overload]
    Thumb(user_id="ada", response="yes", thumb="sideways")  # type: ignore[call-overload]
    Ranking(user_id="ada", responses=[1, 2])  # type: ignore[list-item]
    Settings(half_live="90d")  # type: ignore[call-arg]
    Settings(providers="abacus")  # type: ignore[arg-type]
    Settings.serverless(nonsense=1)  # type: ignore[call-arg]
    client.rank("ada", [1, 2])  # type: ignore[type-var]
    client.score("ada", ["yes"], prompt=7)  # type: ignore[arg-type]
    client.score_many([("ada", 7)])  # type: ignore[list-item]
    ScoreRequest(user_id="ada")  # type: ignore[call-arg]
