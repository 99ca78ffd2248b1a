"""Many users and prompts in one call: the same as one by one, with fewer statements and one call of the encoder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from numpy.typing import NDArray

from mrm_sdk.aclient import AsyncClient
from mrm_sdk.bundle import Bundle
from mrm_sdk.client import Client
from mrm_sdk.errors import BundleMismatchError, ClientClosedError, EmbeddingError, EncoderError, InvalidInputError
from mrm_sdk.schemas.feedback import Comparison, Rating
from mrm_sdk.schemas.items import Response
from mrm_sdk.schemas.requests import ScoreRequest
from mrm_sdk.settings import Settings
from tests.small_encoders import CountingEncoder

A, B, C = (Response(embedding=np.eye(6)[n] * (n + 1)) for n in range(3))
CHAT = [{"role": "user", "content": "Should I?"}]
USERS = ["ada", "bob", "eve"]


class Batches(CountingEncoder):
    """Counts its calls, too."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def encode(self, texts: Sequence[tuple[str | None, str]]) -> NDArray[np.float32]:
        self.calls += 1
        return super().encode(texts)


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database."""
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def encoder() -> Batches:
    return Batches()


@pytest.fixture
def client(url: str, embedded_bundle: Bundle, encoder: Batches) -> Iterator[Client]:
    """One with three users who disagree."""
    with Client(url, bundle=embedded_bundle, encoder=encoder) as client:
        client.record_many(feedback())
        encoder.encoded.clear()
        encoder.calls = 0
        yield client


def feedback() -> list[Comparison | Rating]:
    return [
        Comparison(user_id="ada", chosen="x", rejected="y"),
        Comparison(user_id="bob", chosen="y", rejected="x"),
        Comparison(user_id="bob", chosen=A, rejected=B, tie=True),
        Rating(user_id="eve", response="x", value=1),
        Rating(user_id="eve", response="z", value=5),
    ]


def statements_of(client: Client, work: Callable[[], object]) -> list[str]:
    """The SQL that ``work`` runs."""
    statements: list[str] = []
    engine = client._database.engine

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    work()
    sa.event.remove(engine, "before_cursor_execute", note)
    return statements


class TestPersonalizeMany:
    @pytest.mark.parametrize("size", [1, 2, 1000])
    def test_the_same_as_one_by_one_in_the_order_asked(self, url: str, embedded_bundle: Bundle, size: int) -> None:
        asked, settings = ["eve", "unknown", "ada", "eve", "bob", "ada"], Settings(chunk_size=size)
        said = feedback()
        with (
            Client(url, bundle=embedded_bundle, encoder=CountingEncoder(), settings=settings) as client,
            Client("sqlite://", bundle=embedded_bundle, encoder=CountingEncoder()) as single,
        ):
            assert client.record_many(said) == single.record_many(said)
            for _ in range(2):  # stale, and then up to date
                many = client.personalize_many(iter(asked))
                assert list(many) == ["eve", "unknown", "ada", "bob"]
                assert list(many.values()) == [single.personalize(user) for user in many]
            assert client.personalize_many([]) == {}

    def test_ids_of_any_letters_are_found(self, client: Client) -> None:
        users = ["é 漢 😀", "a'b\"c", "\\u0041", "[null]", " ", "{", "%s", "\x7f\u2028"]
        client.record_many(Comparison(user_id=user, chosen="x", rejected="y") for user in users)
        for _ in range(2):
            many = client.personalize_many(users)
            assert [(user, one.comparisons, one.revision) for user, one in many.items()] == [(u, 1, 1) for u in users]

    def test_only_what_is_stale_is_adapted(self, client: Client) -> None:
        client.personalize("ada")
        client.personalize_many(USERS)
        client.record(Comparison(user_id="bob", chosen="x", rejected="z"))
        revisions = [one.revision for one in client.personalize_many(USERS).values()]
        assert revisions == [1, 2, 1]

    def test_one_statement_reads_all_who_are_up_to_date(self, client: Client) -> None:
        users = [*USERS, *(f"unknown {n}" for n in range(500))]
        client.personalize_many(users)
        assert len(statements_of(client, lambda: client.personalize_many(users))) == 1

    def test_what_is_handed_out_cannot_be_changed(self, client: Client) -> None:
        for user in client.personalize_many([*USERS, "unknown"]).values():
            with pytest.raises(ValueError, match="read-only"):
                user.weights[0] = 0

    @pytest.mark.parametrize("wrong", [None, 7, "ada"])
    def test_what_are_no_ids(self, client: Client, wrong: Any) -> None:
        with pytest.raises(InvalidInputError, match=r"personalize_many takes an iterable of ids, not a \w+; personal"):
            client.personalize_many(wrong)

    @pytest.mark.parametrize("wrong", ["", "u" * 256, None, ["ada"], "\0"], ids=ascii)
    def test_an_id_that_is_wrong_is_named_and_nothing_is_done(self, client: Client, wrong: Any) -> None:
        with pytest.raises(InvalidInputError, match=r"^User 2: user_id"):
            client.personalize_many(["ada", "bob", wrong])
        assert dict(client.summary("ada").weights) == {}

    def test_those_before_one_who_cannot_be_adapted_stay_adapted(
        self, url: str, embedded_bundle: Bundle, other_bundle: Bundle
    ) -> None:
        with Client(url, bundle=embedded_bundle, settings=Settings(store_text=False)) as textless:
            textless.record(Comparison(user_id="bob", chosen=A, rejected=B))
        with Client(url, bundle=other_bundle) as client:
            client.record_many(Comparison(user_id=user, chosen=B, rejected=C) for user in ("ada", "eve"))
            with pytest.raises(BundleMismatchError) as single:
                client.personalize("bob")
            with pytest.raises(BundleMismatchError) as many:
                client.personalize_many(USERS)
            assert str(many.value) == str(single.value)
            assert [len(client.summary(user).weights) for user in USERS] == [1, 0, 0]


REQUESTS: list[Any] = [
    ("ada", ["x", "y", "new"]),
    ScoreRequest(user_id="bob", responses=["new", A, C], prompt=CHAT),
    ("ada", [], "What?"),
    ("unknown", ["x", {"role": "assistant", "content": "y"}], CHAT),
    ("eve", [B, "new", "new"], "user: Should I?"),
    ScoreRequest(user_id="ada", responses=["z"]),
]


def one_by_one(client: Client) -> list[NDArray[np.float32]]:
    scores = []
    for request in REQUESTS:
        if isinstance(request, ScoreRequest):
            request = request.user_id, request.responses, request.prompt
        user, responses, *prompt = request
        scores.append(client.score(user, responses, prompt=prompt[0] if prompt else None))
    return scores


def assert_equal(one: list[NDArray[np.float32]], other: list[NDArray[np.float32]]) -> None:
    assert [scores.dtype for scores in one] == [np.dtype(np.float32)] * len(one)
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, theirs)


class TestScoreMany:
    @pytest.mark.parametrize("size", [1, 2, 3, 1000])
    def test_the_same_as_one_by_one(self, url: str, embedded_bundle: Bundle, size: int) -> None:
        settings, said = Settings(chunk_size=size), feedback()
        with (
            Client(url, bundle=embedded_bundle, encoder=CountingEncoder(), settings=settings) as client,
            Client("sqlite://", bundle=embedded_bundle, encoder=CountingEncoder()) as single,
        ):
            assert client.record_many(said) == single.record_many(said)
            for _ in range(2):
                scores = client.score_many(iter(REQUESTS))
                assert_equal(scores, one_by_one(single))
            assert [len(scores) for scores in scores] == [3, 3, 0, 2, 3, 1]
            assert client.score_many([]) == []

    def test_new_texts_are_encoded_in_one_call_each_once(self, client: Client, encoder: Batches) -> None:
        client.score_many(REQUESTS)
        assert encoder.calls == 1
        told = "user: Should I?"
        assert sorted(encoder.encoded, key=str) == sorted(
            [(None, "new"), (told, "new"), (told, "x"), (told, "y")], key=str
        )
        client.score_many(REQUESTS)
        assert encoder.calls == 1

    def test_two_statements_serve_all_who_are_up_to_date(self, client: Client) -> None:
        requests = [(user, ["x", f"new {n}"]) for n, user in enumerate(USERS * 20)]
        client.score_many(requests)
        weights_and_items = statements_of(client, lambda: client.score_many([*requests, ("ada", ["newer"])]))
        assert len(weights_and_items) == 2
        assert len(statements_of(client, lambda: client.score_many(requests))) == 1

    def test_no_more_than_a_chunk_is_drawn_ahead(self, url: str, embedded_bundle: Bundle, encoder: Batches) -> None:
        with Client(url, bundle=embedded_bundle, encoder=encoder, settings=Settings(chunk_size=4)) as client:

            def watched() -> Iterator[tuple[str, list[str]]]:
                for drawn in range(10):
                    assert len(encoder.encoded) == drawn // 2 * 4  # two answers each
                    yield f"u{drawn}", [f"{drawn} yes", f"{drawn} no"]

            assert len(client.score_many(watched())) == 10
            assert encoder.calls == 5

    @pytest.mark.parametrize("wrong", [None, 7, "ada", ScoreRequest(user_id="ada", responses=["x"])], ids=repr)
    def test_what_are_no_requests(self, client: Client, wrong: Any) -> None:
        with pytest.raises(InvalidInputError, match=r"score_many takes an iterable of requests, not a \w+; score"):
            client.score_many(wrong)

    @pytest.mark.parametrize(
        ("wrong", "kind", "reason"),
        [
            ("ada", InvalidInputError, r"expected a ScoreRequest, or a tuple \(user_id, responses\) .* not str"),
            (("ada",), InvalidInputError, "not a tuple of 1"),
            (("ada", ["x"], None, 7), InvalidInputError, "not a tuple of 4"),
            (("", ["x"]), InvalidInputError, "user_id must be a text"),
            (("ada", "x"), InvalidInputError, "Responses must be a list of them, not a str"),
            (("ada", A), InvalidInputError, "Responses must be a list of them, not a Response"),
            (("ada", None), InvalidInputError, "Responses must be a list of them, not a NoneType"),
            (("ada", [7]), InvalidInputError, "Invalid response: "),
            (("ada", ["x"], 7), InvalidInputError, "Invalid prompt: "),
            (("ada", [Response(embedding=[1.0])]), EmbeddingError, "An embedding has 1 numbers"),
            (("ada", [Response(embedding=[3e38, -3e38] * 3)]), EmbeddingError, "its rewards overflow"),
        ],
        ids=repr,
    )
    def test_a_request_that_is_wrong_is_named(
        self, client: Client, wrong: Any, kind: type[Exception], reason: str
    ) -> None:
        with pytest.raises(kind, match=f"^Request 1: .*{reason}") as caught:
            client.score_many([("ada", ["x"]), wrong, ("bob", ["x"])])
        assert type(caught.value) is kind

    def test_text_without_an_encoder_is_named(self, url: str, embedded_bundle: Bundle) -> None:
        with Client(url, bundle=embedded_bundle) as client, pytest.raises(EncoderError, match=r"^Request 1: .*encoder"):
            client.score_many([("ada", [A]), ("ada", [B, "text"])])

    def test_wrong_fields_of_a_request(self) -> None:
        for values in ({"responses": "x"}, {"responses": {"x"}}, {"responses": ["x"], "user_id": ""}, {}):
            with pytest.raises(InvalidInputError, match="Invalid ScoreRequest: "):
                ScoreRequest(**{"user_id": "ada", **values})  # type: ignore[arg-type]


class TestTwoBundles:
    def test_each_user_is_served_by_the_bundle_that_can(
        self, client: Client, embedded_bundle: Bundle, other_bundle: Bundle
    ) -> None:
        before = client.personalize_many(USERS)
        encoder = Batches()
        client.use(other_bundle, encoder=encoder)
        client.record(Comparison(user_id="new", chosen="other x", rejected="other y"))
        encoder.calls = 0
        asked = ["new", *USERS, "unknown"]
        many = client.personalize_many(asked)
        assert many == {user: client.personalize(user) for user in asked}
        assert {user: many[user] for user in USERS} == before
        assert many["new"].fingerprint == many["unknown"].fingerprint != many["ada"].fingerprint
        requests = [(user, ["some", "thing"]) for user in asked]
        scores = client.score_many(requests)
        assert encoder.calls == 1  # and one of the other bundle's
        assert_equal(scores, [client.score(*request) for request in requests])
        client.rebuild()
        assert len({reward.fingerprint for reward in client.personalize_many(asked).values()}) == 1


def test_a_closed_client(embedded_bundle: Bundle) -> None:
    client = Client("sqlite://", bundle=embedded_bundle)
    client.close()
    for call in (lambda: client.personalize_many([]), lambda: client.score_many([])):
        with pytest.raises(ClientClosedError):
            call()


def test_awaited(url: str, embedded_bundle: Bundle) -> None:
    requests = [(user, [A, B, C]) for user in USERS]

    async def use() -> tuple[Any, list[NDArray[np.float32]]]:
        async with AsyncClient(url, bundle=embedded_bundle) as client:
            await client.record(Comparison(user_id="ada", chosen=A, rejected=B))
            return await client.personalize_many(USERS), await client.score_many(requests)

    rewards, scores = asyncio.run(use())
    with Client(url, bundle=embedded_bundle) as client:
        assert rewards == client.personalize_many(USERS)
        assert_equal(scores, client.score_many(requests))
