"""Keeping weights in step with feedback: real bundle, real database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from numpy.typing import NDArray

from mrm_sdk.bundle import Bundle
from mrm_sdk.client import Client
from mrm_sdk.engine.recording import record_without_features, summarise
from mrm_sdk.errors import EmbeddingError, EncoderError
from mrm_sdk.schemas.feedback import Comparison
from mrm_sdk.schemas.items import Response
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database, Store, upgrade
from tests.small_encoders import BrokenEncoder, CountingEncoder, Other

RNG = np.random.default_rng(5)
A, B, C, D = (Response(embedding=RNG.standard_normal(6)) for _ in range(4))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'mrm.db'}"


@pytest.fixture
def client(url: str, embedded_bundle: Bundle) -> Iterator[Client]:
    with Client(url, bundle=embedded_bundle) as client:
        yield client


def prefer(chosen: Any, rejected: Any, user: str = "ada", **values: Any) -> Comparison:
    return Comparison(user_id=user, chosen=chosen, rejected=rejected, **values)


def weights(bundle: Bundle, comparisons: Sequence[Comparison]) -> NDArray[np.float64]:
    """Weights of the one user of these comparisons, from a database of its own."""
    with Client("sqlite://", bundle=bundle) as client:
        assert client.record_many(comparisons).accepted == len(comparisons)
        return client.personalize(comparisons[0].user_id).weights


def margin(client: Client, one: Response, other: Response, user: str = "ada") -> float:
    first, second = client.score(user, [one, other])
    return float(first - second)


def meet(client: Client, statement: str, work: Callable[[], object]) -> list[int]:
    """Has ``work`` run once, right before the client's first statement that begins so, as another process would."""
    met: list[int] = []

    def listen(_connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
        if sql.startswith(statement) and not met:
            met.append(1)
            work()

    sa.event.listen(client._database.engine, "before_cursor_execute", listen)
    return met


class TestAdaptation:
    def test_an_unknown_user_has_the_prior(self, client: Client, embedded_bundle: Bundle) -> None:
        user = client.personalize("unknown")
        np.testing.assert_array_equal(user.weights, embedded_bundle.prior.w0.numpy())
        np.testing.assert_allclose(user.covariance, np.linalg.inv(embedded_bundle.prior.precision.numpy()))
        assert (user.user_id, user.comparisons, user.revision) == ("unknown", 0, 0)
        assert user.fingerprint == embedded_bundle.fingerprint

    def test_scores_are_weights_times_base_rewards(self, client: Client, embedded_bundle: Bundle) -> None:
        client.record(prefer(A, B))
        embeddings = np.array([r.embedding for r in (A, B, C)])
        expected = embedded_bundle.base_rewards(embeddings) @ client.personalize("ada").weights
        scores = client.score("ada", [A, B, C])
        assert (scores.dtype, scores.shape) == (np.float32, (3,))
        np.testing.assert_allclose(scores, expected, rtol=1e-5)
        assert client.score("ada", []).shape == (0,)

    @pytest.mark.parametrize("pair", [(A, B), (B, A)], ids=["A", "B"])
    def test_a_user_moves_towards_the_chosen_side(self, client: Client, pair: tuple[Response, Response]) -> None:
        before = margin(client, *pair)
        for _ in range(10):
            client.record(prefer(*pair))
            after = margin(client, *pair)
            assert after > before  # each score has seen the newest comparison
            before = after
        assert before > 0

    def test_the_covariance_shrinks(self, client: Client) -> None:
        before = client.personalize("ada").covariance
        client.record_many([prefer(A, B), prefer(C, D)])
        after = client.personalize("ada").covariance
        assert before is not None
        assert after is not None
        assert np.linalg.eigvalsh(before - after).min() > -1e-12
        assert np.trace(after) < np.trace(before)

    def test_a_revision_is_a_change(self, client: Client) -> None:
        client.record(prefer(A, B))
        first = client.personalize("ada")
        assert (first.revision, first.comparisons) == (1, 1)
        client.score("ada", [A, B])
        again = client.personalize("ada")
        assert again.revision == 1
        np.testing.assert_array_equal(again.weights, first.weights)
        client.record(prefer(C, D))
        second = client.personalize("ada")
        assert (second.revision, second.comparisons) == (2, 2)
        assert not np.array_equal(second.weights, first.weights)

    def test_users_do_not_move_each_other(self, client: Client) -> None:
        client.record(prefer(A, B))
        before = client.personalize("ada")
        client.record_many([prefer(B, A, "bob")])
        after = client.personalize("ada")
        assert after.revision == before.revision
        np.testing.assert_array_equal(after.weights, before.weights)
        assert client.personalize("unknown").comparisons == 0

    def test_the_order_does_not_matter(self, embedded_bundle: Bundle) -> None:
        comparisons = [prefer(A, B), prefer(C, A, strength=3.0), prefer(B, D, tie=True), prefer(D, C), prefer(A, D)]
        expected = weights(embedded_bundle, comparisons)
        for shift in range(1, 5):
            # New ids, too: replicas sort by id, and ids say nothing about taste.
            moved = [Comparison(**{**dict(c), "event_id": f"{n}"}) for n, c in enumerate(comparisons)]
            moved = moved[shift:] + moved[:shift]
            np.testing.assert_allclose(weights(embedded_bundle, moved), expected, rtol=0, atol=1e-12)
            renamed = [Comparison(**{**dict(c), "event_id": f"{(n + shift) % 5}"}) for n, c in enumerate(comparisons)]
            np.testing.assert_allclose(weights(embedded_bundle, renamed), expected, rtol=0, atol=1e-12)

    def test_strength_counts_repetitions(self, embedded_bundle: Bundle) -> None:
        twice = weights(embedded_bundle, [prefer(A, B), prefer(A, B), prefer(C, D)])
        strong = weights(embedded_bundle, [prefer(A, B, strength=2.0), prefer(C, D)])
        once = weights(embedded_bundle, [prefer(A, B), prefer(C, D)])
        np.testing.assert_allclose(strong, twice, rtol=0, atol=1e-9)
        assert np.abs(once - twice).max() > 1e-6

    def test_a_tie_pulls_to_equality(self, client: Client, embedded_bundle: Bundle) -> None:
        client.record_many([prefer(A, B) for _ in range(5)])
        before = margin(client, A, B)
        client.record_many([prefer(A, B, tie=True, strength=100) for _ in range(5)])
        after = margin(client, A, B)
        assert before > 0
        assert abs(after) < before / 5
        there = weights(embedded_bundle, [prefer(A, B, tie=True), prefer(C, D)])
        back = weights(embedded_bundle, [prefer(B, A, tie=True), prefer(C, D)])
        np.testing.assert_allclose(there, back, rtol=0, atol=1e-9)

    def test_opposites_cancel(self, client: Client) -> None:
        client.record_many([prefer(A, B, strength=50), prefer(B, A, strength=50)])
        assert abs(margin(client, A, B)) < abs(margin(client, A, B, "unknown")) + 1e-6


class TestForgetting:
    def test_the_prior_is_back(self, client: Client) -> None:
        prior = client.score("unknown", [A, B, C])
        client.record(prefer(A, B))
        assert not np.array_equal(client.score("ada", [A, B, C]), prior)
        client.forget("ada")
        np.testing.assert_array_equal(client.score("ada", [A, B, C]), prior)
        assert client.personalize("ada").revision == 0

    def test_a_new_start(self, client: Client, embedded_bundle: Bundle) -> None:
        client.record_many([prefer(A, B), prefer(A, D)])
        client.personalize("ada")
        client.forget("ada")
        client.record(prefer(B, C))
        np.testing.assert_array_equal(
            client.personalize("ada").weights, weights(embedded_bundle, [prefer(B, C, "someone")])
        )

    def test_a_user_who_starts_anew_while_being_adapted(
        self, url: str, client: Client, embedded_bundle: Bundle
    ) -> None:
        # The weights that are about to be stored come from comparisons that are gone by then.
        client.record(prefer(A, B))

        def start_anew() -> None:
            with Client(url, bundle=embedded_bundle) as other:
                other.forget("ada")
                other.record(prefer(B, A, created_at=datetime.now(UTC) + timedelta(days=1)))

        met = meet(client, "BEGIN IMMEDIATE", start_anew)
        client.personalize("ada")
        assert met
        np.testing.assert_array_equal(
            client.personalize("ada").weights, weights(embedded_bundle, [prefer(B, A, "someone")])
        )

    def test_feedback_that_arrives_while_being_adapted(self, url: str, client: Client, embedded_bundle: Bundle) -> None:
        client.record(prefer(A, B))

        def record() -> None:
            with Client(url, bundle=embedded_bundle) as other:
                other.record(prefer(C, D))
                assert other.personalize("ada").comparisons == 2

        met = meet(client, "BEGIN IMMEDIATE", record)
        assert client.personalize("ada").comparisons == 2
        assert met


class TestEncoding:
    @pytest.mark.slow
    def test_each_text_is_encoded_once(self, url: str, embedded_bundle: Bundle) -> None:
        texts = [f"text {n}" for n in range(100)]
        rng = np.random.default_rng(0)
        many = (
            prefer(texts[a], texts[(a + step) % 100], f"u{n % 40}")
            for n, (a, step) in enumerate(zip(rng.integers(0, 100, 60_000), rng.integers(1, 100, 60_000), strict=True))
        )
        encoder = CountingEncoder()
        with Client(url, bundle=embedded_bundle, encoder=encoder) as client:
            assert client.record_many(many).accepted == 60_000
            assert sorted(encoder.encoded) == sorted((None, text) for text in texts)
            reward = client.personalize("u0")
            assert reward.comparisons == 1500
            client.score("u0", texts)
        assert len(encoder.encoded) == 100

        encoder = CountingEncoder()
        with Client(url, bundle=embedded_bundle, encoder=encoder) as client:
            client.record(prefer(texts[1], texts[2], "u0"))
            client.score("u1", texts)
            assert client.personalize("u0").comparisons == 1501
        assert encoder.encoded == []

    def test_the_prompt_belongs_to_the_text(self, url: str, embedded_bundle: Bundle) -> None:
        encoder = CountingEncoder()
        with Client(url, bundle=embedded_bundle, encoder=encoder) as client:
            client.record(prefer("x", "y", prompt=[{"role": "user", "content": "hi"}]))
            client.score("ada", ["x"], prompt="user: hi")
            client.score("ada", ["x"])
        assert encoder.encoded == [("user: hi", "x"), ("user: hi", "y"), (None, "x")]

    def test_an_embedding_needs_no_encoder(self, url: str, embedded_bundle: Bundle) -> None:
        encoder = CountingEncoder()
        with Client(url, bundle=embedded_bundle, encoder=encoder) as client:
            client.record(prefer(Response(text="x", embedding=A.embedding), B))
        assert encoder.encoded == []

    @pytest.mark.parametrize("size", [0, 1, 7])
    def test_the_cache_is_bounded(self, embedded_bundle: Bundle, size: int) -> None:
        encoder, texts = CountingEncoder(), [f"text {n}" for n in range(20)]
        settings = Settings(cache_items=size)
        with Client("sqlite://", bundle=embedded_bundle, encoder=encoder, settings=settings) as client:
            expected = client.score("ada", texts)
            assert len(client._personalizer.featurizer._cache) == size
            # What was scored is not stored, so what did not fit is encoded again; the newest are still there.
            encoder.encoded.clear()
            client.score("ada", texts[20 - size :])
            assert encoder.encoded == []
            np.testing.assert_array_equal(client.score("ada", texts), expected)
            assert len(encoder.encoded) == 20 - size

    def test_the_least_recently_used_leaves_first(self, embedded_bundle: Bundle) -> None:
        encoder, settings = CountingEncoder(), Settings(cache_items=2)
        with Client("sqlite://", bundle=embedded_bundle, encoder=encoder, settings=settings) as client:
            for text in ("a", "b", "a", "c", "a", "b"):
                client.score("ada", [text])
        assert [text for _, text in encoder.encoded] == ["a", "b", "c", "b"]

    @pytest.mark.parametrize("output", [np.zeros((1, 6)), np.zeros((2, 5)), np.zeros(12), np.full((2, 6), np.nan)])
    def test_an_encoder_that_fails(self, embedded_bundle: Bundle, output: Any) -> None:
        with Client("sqlite://", bundle=embedded_bundle, encoder=BrokenEncoder(output)) as client:
            with pytest.raises(EncoderError):
                client.record(prefer("x", "y"))
            assert client.personalize("ada").comparisons == 0

    def test_embeddings_that_overflow(self, client: Client) -> None:
        huge = Response(embedding=[3e38, -3e38] * 3)
        with pytest.raises(EmbeddingError, match="overflow"):
            client.record(prefer(huge, A))
        assert client.personalize("ada").comparisons == 0


class TestBundles:
    def test_another_bundle_makes_its_own_features(
        self, url: str, embedded_bundle: Bundle, other_bundle: Bundle
    ) -> None:
        comparisons = [prefer(A, B), prefer(C, D), prefer(A, D)]
        with Client(url, bundle=embedded_bundle) as first, Client(url, bundle=other_bundle) as second:
            first.record_many(comparisons[:2])
            before = first.personalize("ada")
            second.record(comparisons[2])
            for client, bundle in ((second, other_bundle), (first, embedded_bundle)):
                user = client.personalize("ada")
                assert (user.comparisons, user.fingerprint) == (3, bundle.fingerprint)
                assert len(user.weights) == bundle.manifest.base_functions
                np.testing.assert_allclose(user.weights, weights(bundle, comparisons), rtol=0, atol=1e-12)
            assert len(before.weights) == 3
            assert first.personalize("ada").revision == 2
            assert second.personalize("ada").revision == 1

    def test_events_without_features_get_them(self, url: str, embedded_bundle: Bundle) -> None:
        comparisons = [prefer("x", "y"), prefer("y", "z", tie=True), prefer(A, "x")]
        database = Database(url, Settings())
        upgrade(database)
        store = Store(database, "default")
        recorded = summarise(record_without_features(store, [*comparisons, comparisons[0]], 2))
        assert (recorded.accepted, recorded.duplicates, recorded.rejected) == (3, 1, ())
        assert store.feedback("ada", embedded_bundle.features_hash).z == [None] * 3

        encoder = CountingEncoder()
        with Client(url, bundle=embedded_bundle, encoder=encoder) as client:
            weights_before = client.personalize("ada").weights
        assert sorted(text for _, text in encoder.encoded) == ["x", "y", "z"]
        assert store.feedback("ada", embedded_bundle.features_hash).z == [None] * 3  # those are another encoder's
        database.close()
        with Client("sqlite://", bundle=embedded_bundle, encoder=CountingEncoder()) as client:
            client.record_many(comparisons)
            np.testing.assert_allclose(client.personalize("ada").weights, weights_before, rtol=0, atol=1e-12)


def test_vectors_of_two_encoders_never_meet(url: str, embedded_bundle: Bundle) -> None:
    comparisons = [prefer("x", "y"), prefer("z", "y")]
    scores = []
    for encoder in (CountingEncoder(), Other()):
        with Client(url, bundle=embedded_bundle, encoder=encoder) as client:
            client.record_many(comparisons)
            scores.append(client.score("ada", ["x", "y"]))
        assert len(encoder.encoded) == 3
        with Client("sqlite://", bundle=embedded_bundle, encoder=encoder) as alone:
            alone.record_many(comparisons)
            np.testing.assert_allclose(alone.score("ada", ["x", "y"]), scores[-1], atol=1e-6)
    assert not np.allclose(*scores)


def test_an_event_that_does_not_fit_costs_its_user_nothing_else(url: str, embedded_bundle: Bundle) -> None:
    fits = [prefer(A, B), prefer(B, A)]
    wide = Comparison(user_id="ada", chosen=Response(embedding=[1, 2]), rejected=Response(embedding=[3, 4]))
    huge = Comparison(user_id="ada", chosen=Response(embedding=[1e38] * 6), rejected=A)
    database = Database(url, Settings())
    upgrade(database)
    assert summarise(record_without_features(Store(database, "default"), [*fits, wide, huge], 10)).accepted == 4
    database.close()
    with Client(url, bundle=embedded_bundle) as client:
        assert client.personalize("ada").comparisons == 2
        # With the bundle at hand, the same is refused at once.
        ((_, reason),) = client.record_many([huge]).rejected
        assert "too large" in reason


def test_threads_lose_nothing(url: str, embedded_bundle: Bundle) -> None:
    done = threading.Event()
    with Client(url, bundle=embedded_bundle) as client, ThreadPoolExecutor(4) as pool:

        def record(thread: int) -> int:
            return sum(client.record(prefer(A, B, f"u{n % 2}", event_id=f"{thread}-{n}")).accepted for n in range(40))

        def personalize() -> list[int]:
            seen = [0]
            while not done.is_set():
                seen.append(client.personalize("u0").comparisons)
            return seen

        readers = [pool.submit(personalize) for _ in range(2)]
        try:
            assert sum(pool.map(record, range(2))) == 80
        finally:
            done.set()
        for reader in readers:
            seen = reader.result()
            assert seen == sorted(seen)  # no reader ever sees a step back
        assert [client.personalize(user).comparisons for user in ("u0", "u1")] == [40, 40]
        expected = weights(embedded_bundle, [prefer(A, B) for _ in range(40)])
        np.testing.assert_allclose(client.personalize("u0").weights, expected, rtol=0, atol=1e-12)
