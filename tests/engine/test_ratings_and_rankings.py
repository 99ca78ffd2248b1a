"""Ratings, thumbs and rankings through a client: real bundle, real database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mrm_sdk.aclient import AsyncClient
from mrm_sdk.bundle import Bundle
from mrm_sdk.client import Client
from mrm_sdk.core.ratings import MOST_DISTANCES
from mrm_sdk.engine.recording import record_without_features, summarise
from mrm_sdk.errors import ConflictError, EmbeddingError, InvalidInputError, UserForgottenError
from mrm_sdk.schemas.feedback import Comparison, Feedback, Ranking, Rating, Thumb
from mrm_sdk.schemas.items import Response
from mrm_sdk.schemas.results import Counted, UserReward
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database, Store, upgrade
from tests.small_encoders import CountingEncoder

RNG = np.random.default_rng(9)
MANY = [Response(embedding=RNG.standard_normal(6)) for _ in range(12)]
A, B, C, D = MANY[:4]
NOW = datetime.now(UTC)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'mrm.db'}"


@pytest.fixture
def client(url: str, embedded_bundle: Bundle) -> Iterator[Client]:
    with Client(url, bundle=embedded_bundle) as client:
        yield client


def rate(response: Any, value: float, **values: Any) -> Rating:
    return Rating(**{"user_id": "ada", "response": response, "value": value, **values})


def thumb(response: Any, up: bool, **values: Any) -> Thumb:
    return Thumb(**{"user_id": "ada", "response": response, "up": up, **values})


def order(*responses: Any, **values: Any) -> Ranking:
    return Ranking(**{"user_id": "ada", "responses": responses, **values})


def prefer(chosen: Any, rejected: Any, **values: Any) -> Comparison:
    return Comparison(**{"user_id": "ada", "chosen": chosen, "rejected": rejected, **values})


def adapted(bundle: Bundle, feedback: Iterable[Feedback], *, one_by_one: bool = False) -> UserReward:
    """What becomes of one user, in a database of its own."""
    with Client("sqlite://", bundle=bundle) as client:
        for part in [[one] for one in feedback] if one_by_one else [list(feedback)]:
            assert client.record_many(part).rejected == ()
            if one_by_one:
                client.personalize("ada")
        return client.personalize("ada")


def same(one: UserReward, other: UserReward) -> None:
    np.testing.assert_allclose(one.weights, other.weights, rtol=0, atol=1e-6)  # of Newton's last step
    np.testing.assert_allclose(one.covariance, other.covariance, rtol=0, atol=1e-6)  # of Newton's last step


class TestDirection:
    def margin(self, client: Client) -> float:
        first, second = client.score("ada", [A, B])
        return float(first - second)

    @pytest.mark.parametrize("up", [True, False])
    def test_thumbs(self, client: Client, up: bool) -> None:
        before = self.margin(client)
        client.record_many([thumb(A, up), thumb(B, not up)])
        assert (self.margin(client) > before) == up

    @pytest.mark.parametrize("value", [2, 5])
    def test_ratings_one_at_a_time(self, client: Client, value: float) -> None:
        before = self.margin(client)
        assert client.record(rate(A, value)).accepted == 1
        assert self.margin(client) == before
        client.record(rate(B, 3))
        assert (self.margin(client) > before) == (value > 3)

    def test_a_ranking(self, client: Client) -> None:
        with_prior = client.score("ada", MANY)
        client.record(order(*MANY[::-1], strength=50))
        scores = client.score("ada", MANY)
        places = np.arange(len(MANY))
        assert np.corrcoef(scores, places)[0, 1] > max(0.4, np.corrcoef(with_prior, places)[0, 1])

    @pytest.mark.parametrize("feedback", [[rate(A, 1), rate(B, 2)], [order(A, B, C)]], ids=["ratings", "ranking"])
    def test_the_covariance_shrinks(self, client: Client, feedback: list[Feedback]) -> None:
        before = client.personalize("ada").covariance
        client.record_many(feedback)
        after = client.personalize("ada").covariance
        assert before is not None
        assert after is not None
        assert np.linalg.eigvalsh(before - after).min() > -1e-12
        assert np.trace(after) < np.trace(before)


class TestRules:
    def test_the_scale_does_not_matter(self, embedded_bundle: Bundle) -> None:
        there = adapted(embedded_bundle, [rate(A, 5, strength=3), rate(B, 2, strength=12)])
        same(there, adapted(embedded_bundle, [rate(A, 0.5, strength=3), rate(B, -100, strength=12)]))

    def test_a_ranking_is_all_its_pairs(self, embedded_bundle: Bundle) -> None:
        ranked = adapted(embedded_bundle, [order(A, B, C, strength=2)])
        pairs = [prefer(*sides, strength=4 / 3) for sides in ((A, B), (A, C), (B, C))]
        same(ranked, adapted(embedded_bundle, pairs))
        assert ranked.comparisons == 3

    def test_prompts_are_apart(self, embedded_bundle: Bundle) -> None:
        chat = [{"role": "user", "content": "hi"}]
        apart = [rate(A, 1), rate(B, 2, prompt="why?"), rate(C, 3, prompt=chat)]
        counted = adapted(embedded_bundle, apart).counted
        assert counted == Counted(comparisons=0, rating_pairs=0, ratings_alone=2)  # 2 is the mean
        counted = adapted(embedded_bundle, [*apart, rate(D, 1, prompt="user: hi")]).counted
        assert counted == Counted(comparisons=0, rating_pairs=1, ratings_alone=4)

    @pytest.mark.parametrize(
        "feedback", [[], [rate(A, 3)], [rate(A, 0), rate(B, 0, prompt="why?")], [rate(A, 2), rate(B, 2), rate(C, 2)]]
    )
    def test_nothing_to_compare_leaves_the_prior(self, embedded_bundle: Bundle, feedback: list[Feedback]) -> None:
        user = adapted(embedded_bundle, feedback)
        prior = adapted(embedded_bundle, [])
        np.testing.assert_array_equal(user.weights, prior.weights)
        np.testing.assert_allclose(user.covariance, prior.covariance, rtol=1e-12)
        assert user.comparisons == len(feedback)
        assert user.counted == Counted(comparisons=0, rating_pairs=0, ratings_alone=0)

    def test_the_latest_rating_wins(self, embedded_bundle: Bundle) -> None:
        old = rate(A, 1, created_at=NOW - timedelta(hours=1))
        new, other = rate(A, 5, created_at=NOW), rate(B, 3)
        expected = adapted(embedded_bundle, [new, other])
        for feedback in ([old, other, new], [new, other, old]):
            user = adapted(embedded_bundle, feedback, one_by_one=True)
            same(user, expected)
            assert user.comparisons == 2

    def test_all_kinds_together(self, embedded_bundle: Bundle) -> None:
        user = adapted(embedded_bundle, [prefer(A, B), order(B, C, D), rate(A, 2), thumb(C, False), rate(D, 1)])
        assert user.comparisons == 1 + 3 + 3

    def test_thousands_in_one_prompt(self, client: Client) -> None:
        embeddings = np.random.default_rng(1).standard_normal((2000, 6))
        taste = np.arange(6)
        client.record_many(rate(Response(embedding=e), float(e @ taste)) for e in embeddings)
        user = client.personalize("ada")
        assert user.comparisons == 2000 > MOST_DISTANCES
        scores = client.score("ada", [Response(embedding=e) for e in embeddings[:100]])
        assert np.corrcoef(scores, embeddings[:100] @ taste)[0, 1] > 0.3


VALUES = st.lists(
    st.tuples(st.integers(0, 11), st.sampled_from([None, "why?"]), st.integers(1, 5), st.integers(0, 3)), max_size=25
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALUES, st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_arrival_does_not_matter(
    embedded_bundle: Bundle, rated: list[tuple[int, str | None, int, int]], random: Any, one_by_one: bool
) -> None:
    feedback = [
        rate(MANY[item], value, prompt=prompt, event_id=f"e{n}", created_at=NOW - timedelta(hours=hours))
        for n, (item, prompt, value, hours) in enumerate(rated)
    ]
    expected = adapted(embedded_bundle, feedback)
    random.shuffle(feedback)
    reward = adapted(embedded_bundle, feedback, one_by_one=one_by_one)
    np.testing.assert_array_equal(reward.weights, expected.weights)  # to the last bit: replicas agree
    assert reward.comparisons == expected.comparisons


class TestRecord:
    def test_duplicates_and_conflicts(self, client: Client) -> None:
        for one, other in (
            (rate(A, 4, event_id="e1"), rate(A, 5, event_id="e1")),
            (thumb(A, True, event_id="e2"), thumb(A, False, event_id="e2")),
            (order(A, B, C, event_id="e3"), order(A, C, B, event_id="e3")),
        ):
            assert client.record(one).accepted == 1
            assert client.record(one).duplicates == 1
            with pytest.raises(ConflictError, match=one.event_id):
                client.record(other)
        assert client.personalize("ada").comparisons == 1 + 3  # the thumb came after the rating of the same response

    @pytest.mark.parametrize("chunk_size", [1, 2, 1000])
    def test_says_which_ones_and_why(self, url: str, embedded_bundle: Bundle, chunk_size: int) -> None:
        wide = Response(embedding=np.ones(7))
        several: list[Any] = [
            rate(A, 1),
            rate(wide, 1),
            order(A, B, wide),
            order(A, B, C, event_id="e1"),
            {"response": "x", "value": 3},
            order(C, B, A, event_id="e1"),
            thumb("text", True),
            rate(Response(embedding=[3e38, -3e38] * 3), 2),
            order(A, Response(embedding=[3e38, -3e38] * 3)),
            thumb(B, False),
        ]
        with Client(url, bundle=embedded_bundle, settings=Settings(chunk_size=chunk_size)) as client:
            recorded = client.record_many(several)
            assert (recorded.accepted, recorded.duplicates) == (3, 0)
            reasons = dict(recorded.rejected)
            words = ["7 numbers", "7 numbers", "not dict", "other content", "no encoder", "too large", "too large"]
            assert list(reasons) == [1, 2, 4, 5, 6, 7, 8]
            assert [word in reason for word, reason in zip(words, reasons.values(), strict=True)] == [True] * 7
            assert client.personalize("ada").comparisons == 3 + 2

    def test_one_refused_is_an_error(self, client: Client) -> None:
        with pytest.raises(EmbeddingError, match="7 numbers"):
            client.record(order(A, Response(embedding=np.ones(7))))
        for single in (rate(A, 1), thumb(A, True), order(A, B)):
            with pytest.raises(InvalidInputError, match="record takes one"):
                client.record_many(single)  # type: ignore[arg-type]
        assert client.personalize("ada").comparisons == 0

    def test_a_chunk_counts_what_rankings_make(self, url: str, embedded_bundle: Bundle) -> None:
        settings = Settings(chunk_size=6)
        with (
            Client(url, bundle=embedded_bundle) as watcher,
            Client(url, bundle=embedded_bundle, settings=settings) as client,
        ):

            def watched() -> Iterator[Ranking]:
                for drawn in range(6):
                    assert watcher.personalize("ada").comparisons == drawn // 2 * 6
                    yield order(A, B, C)

            assert client.record_many(watched()).accepted == 6

    def test_each_text_is_encoded_once(self, url: str, embedded_bundle: Bundle) -> None:
        encoder = CountingEncoder()
        with Client(url, bundle=embedded_bundle, encoder=encoder) as client:
            client.record_many([rate("x", 1), rate("y", 2), order("x", "y", "z"), thumb("z", True), rate("x", 3)])
            client.score("ada", ["x", "y", "z"])
        assert sorted(text for _, text in encoder.encoded) == ["x", "y", "z"]
        with Client(url, bundle=embedded_bundle, encoder=CountingEncoder()) as client:
            client.record(rate("y", 1))
            client.personalize("ada")
            assert client._personalizer.featurizer._encoder.encoded == []  # type: ignore[attr-defined]

    def test_awaited(self, url: str, embedded_bundle: Bundle) -> None:
        feedback = [rate(A, 1), thumb(B, True), order(C, D)]

        async def use() -> UserReward:
            async with AsyncClient(url, bundle=embedded_bundle) as client:
                await client.record(feedback[0])
                assert (await client.record_many(feedback)).duplicates == 1
                return await client.personalize("ada")

        same(asyncio.run(use()), adapted(embedded_bundle, feedback))


class TestForgetting:
    def test_ratings_are_gone_and_stay_out(self, client: Client) -> None:
        prior = client.score("ada", MANY)
        feedback = [rate(A, 1), rate(B, 5), order(C, D)]
        client.record_many(feedback)
        assert not np.array_equal(client.score("ada", MANY), prior)
        rows = client.forget("ada").rows
        assert (rows["mrm_ratings"], rows["mrm_comparisons"], rows["mrm_items"]) == (2, 1, 4)
        np.testing.assert_array_equal(client.score("ada", MANY), prior)
        for one in feedback:
            with pytest.raises(UserForgottenError):
                client.record(one)


class TestLater:
    def feedback(self) -> list[Feedback]:
        return [rate("x", 1), rate("y", 2), order("x", "z", "y"), thumb("z", True), prefer("x", "w")]

    def test_events_without_features_get_them(self, url: str, embedded_bundle: Bundle) -> None:
        feedback = self.feedback()
        database = Database(url, Settings())
        upgrade(database)
        recorded = summarise(record_without_features(Store(database, "default"), [*feedback, feedback[2]], 2))
        assert (recorded.accepted, recorded.duplicates, recorded.rejected) == (5, 1, ())
        database.close()
        encoder = CountingEncoder()
        with Client(url, bundle=embedded_bundle, encoder=encoder) as client:
            reward = client.personalize("ada")
        assert sorted(text for _, text in encoder.encoded) == ["w", "x", "y", "z"]
        with Client("sqlite://", bundle=embedded_bundle, encoder=CountingEncoder()) as client:
            client.record_many(feedback)
            same(client.personalize("ada"), reward)
        encoder.encoded.clear()
        with Client(url, bundle=embedded_bundle, encoder=encoder) as client:
            client.record(rate("x", 4))
            assert client.personalize("ada").comparisons == reward.comparisons
        assert encoder.encoded == []

    def test_another_bundle_makes_its_own_features(
        self, url: str, embedded_bundle: Bundle, other_bundle: Bundle
    ) -> None:
        feedback = [rate(A, 1), rate(B, 2), order(B, C)]
        with Client(url, bundle=embedded_bundle) as first, Client(url, bundle=other_bundle) as second:
            first.record_many(feedback)
            same(second.personalize("ada"), adapted(other_bundle, feedback))
            same(first.personalize("ada"), adapted(embedded_bundle, feedback))

    def test_a_rating_that_does_not_fit_costs_nothing_else(
        self, url: str, embedded_bundle: Bundle, caplog: pytest.LogCaptureFixture
    ) -> None:
        fits = [rate(A, 1), rate(B, 5)]
        bad = [rate(Response(embedding=[1, 2]), 3, event_id="wide"), rate(Response(embedding=[1e38] * 6), 3)]
        database = Database(url, Settings())
        upgrade(database)
        assert summarise(record_without_features(Store(database, "default"), [*fits, *bad], 10)).accepted == 4
        database.close()
        with Client(url, bundle=embedded_bundle) as client:
            user = client.personalize("ada")
        assert user.comparisons == 2
        same(user, adapted(embedded_bundle, fits))
        assert "event wide is left out: it does not fit the bundle" in caplog.text
