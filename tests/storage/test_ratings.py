"""Ratings and rankings in the store: what every database must do alike."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from mrm_sdk.errors import ConflictError, UserForgottenError
from mrm_sdk.schemas.feedback import Ranking, Rating, Thumb
from mrm_sdk.schemas.items import Item
from mrm_sdk.storage import Database, Store
from mrm_sdk.storage.events import AnyEvent, Outcome, event_of
from mrm_sdk.storage.tables import Base
from tests.storage.events import FEATURES, FINGERPRINT, accepted, event, reasons

NOW = datetime.now(UTC)
FAR = timedelta(hours=5)


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database, "acme")


def rating(response: str = "yes", value: float = 4, user: str = "ada", **values: Any) -> AnyEvent:
    return event_of(Rating(user_id=user, response=response, value=value, **values))


def ranking(*responses: str, user: str = "ada", **values: Any) -> AnyEvent:
    return event_of(Ranking(user_id=user, responses=responses, **values))


def add(store: Store, *events: AnyEvent) -> list[Outcome]:
    """Stores events with base rewards for their items, as a client with a bundle does."""
    items = sorted({item.key for e in events for item in e.items})
    rewards = {key: np.full(3, number, np.float32) for number, key in enumerate(items)}
    return store.add(events, features_hash=FEATURES, base_rewards=rewards)


def rows(store: Store) -> dict[str, int]:
    with store.database.transaction() as connection:
        counts = {
            name: connection.scalar(sa.select(sa.func.count()).where(table.c.tenant == store.tenant))
            for name, table in Base.metadata.tables.items()
        }
    return {name: count for name, count in counts.items() if count}


def values(store: Store, user: str = "ada") -> list[float]:
    return sorted(r.value for r in store.feedback(user, FEATURES).ratings)


class TestRatings:
    def test_round_trip(self, store: Store) -> None:
        add(store, rating("yes", 0.1, prompt="why?", strength=2.5, event_id="e1", created_at=NOW), rating("no", -1e300))
        ratings = store.feedback("ada", FEATURES).ratings
        (found,) = (r for r in ratings if r.event_id == "e1")
        item = Item.of("why?", "yes")
        assert (found.item, found.prompt, found.value, found.strength) == (item.key, item.prompt_key, 0.1, 2.5)
        assert found.created_at == NOW
        assert found.base_rewards is not None
        np.testing.assert_array_equal(found.base_rewards, store.base_rewards(FEATURES, [item.key])[item.key])
        assert [r.base_rewards for r in store.feedback("ada", "e" * 64).ratings] == [None] * 2
        assert [r.item for r in ratings] == sorted(r.item for r in ratings)
        assert len({r.prompt for r in ratings}) == 2

    def test_new_then_duplicate_then_conflict(self, store: Store) -> None:
        first = rating(event_id="e1")
        assert accepted(add(store, first)) == [True]
        seen = store.weights("ada", FINGERPRINT)[0]
        again = rating(event_id="e1", created_at=NOW + FAR)  # a retry comes later, and is still the same event
        for same in (first, again):
            outcomes = add(store, same)
            assert (accepted(outcomes), reasons(outcomes)) == ([False], [None])
        others = [
            rating(event_id="e1", value=5),
            rating(event_id="e1", strength=2.0),
            rating(event_id="e1", prompt="why?"),
            rating(event_id="e1", user="bob"),
            rating("no", event_id="e1"),
            event(event_id="e1"),
            ranking("yes", "no", event_id="e1"),
        ]
        for changed in others:
            assert reasons(add(store, changed)) == [ConflictError]
        # Nor may a rating come under a comparison's id.
        add(store, event(event_id="e2"))
        assert reasons(add(store, rating(event_id="e2"))) == [ConflictError]
        assert rows(store)["mrm_ratings"] == 1
        assert store.weights("ada", FINGERPRINT)[0] == seen + 1

    def test_a_thumb_is_a_rating(self, store: Store) -> None:
        up = event_of(Thumb(user_id="ada", response="yes", up=True, event_id="e1"))
        assert accepted(add(store, up)) == [True]
        assert reasons(add(store, rating(value=1.0, event_id="e1"), rating(value=-1.0, event_id="e1"))) == [
            None,
            ConflictError,
        ]
        assert values(store) == [1.0]

    @pytest.mark.parametrize("backwards", [False, True])
    def test_the_latest_rating_of_an_item_counts(self, store: Store, backwards: bool) -> None:
        events = [
            rating("yes", 1, event_id="e9", created_at=NOW - FAR),
            rating("yes", 2, event_id="e1", created_at=NOW),
            rating("yes", 3, event_id="E2", created_at=NOW),  # databases order letters in ways of their own
            rating("yes", 4, prompt="why?", created_at=NOW - FAR),
            rating("no", 5, user="bob", created_at=NOW + FAR),
        ]
        for e in reversed(events) if backwards else events:
            add(store, e)
        assert values(store) == [2, 4]
        assert values(store, "bob") == [5]

    def test_feedback_grows_with_each_accepted_rating(self, store: Store) -> None:
        add(store, rating(event_id="e1"))
        first, _ = store.weights("ada", FINGERPRINT)
        add(store, rating(event_id="e1"))
        assert store.weights("ada", FINGERPRINT)[0] == first
        add(store, rating(event_id="e2"))
        assert store.weights("ada", FINGERPRINT)[0] == store.feedback("ada", FEATURES).feedback_version == first + 1

    def test_the_same_from_eight_threads(self, store: Store) -> None:
        events = [rating(f"x{n}", n, event_id=f"e{n}") for n in range(10)] + [ranking("a", "b", "c", event_id="r")]
        with ThreadPoolExecutor(8) as pool:
            outcomes = [one for many in pool.map(lambda _: add(store, *events), range(8)) for one in many]
        assert sum(accepted(outcomes)) == len(events)
        assert set(reasons(outcomes)) == {None}
        assert (rows(store)["mrm_ratings"], rows(store)["mrm_comparisons"]) == (10, 3)


class TestRankings:
    def test_stored_as_comparisons(self, store: Store) -> None:
        assert accepted(add(store, ranking("a", "b", "c", event_id="e1"))) == [True]
        feedback = store.feedback("ada", FEATURES)
        assert feedback.event_ids == ["e1", "e1#1", "e1#2"]
        assert feedback.strength == pytest.approx([2 / 3] * 3)
        keys = [Item.of(None, text).key for text in "abc"]
        assert feedback.items == [(keys[0], keys[1]), (keys[0], keys[2]), (keys[1], keys[2])]
        assert rows(store)["mrm_comparison_features"] == 3

    def test_new_then_duplicate_then_conflict(self, store: Store) -> None:
        add(store, ranking("a", "b", "c", "d", event_id="e1", strength=2.0))
        before = rows(store)
        assert reasons(add(store, ranking("a", "b", "c", "d", event_id="e1", strength=2.0))) == [None]
        changed: Sequence[AnyEvent] = [
            ranking("a", "b", "d", "c", event_id="e1", strength=2.0),
            ranking("a", "b", "c", "d", event_id="e1"),
            ranking("a", "b", "c", event_id="e1", strength=1.5),  # its comparisons weigh the same as those stored
            ranking("a", "b", event_id="e1"),
            ranking("a", "b", "c", "d", "e", event_id="e1", strength=2.5),
            ranking("a", "b", "c", "d", event_id="e1", strength=2.0, user="bob"),
            rating("a", event_id="e1"),
            event("ada", "a", "b", event_id="e1", strength=0.5),
        ]
        outcomes = [outcome for e in changed for outcome in add(store, e)]
        assert reasons(outcomes) == [ConflictError] * len(changed)
        assert rows(store) == before

    def test_whole_or_not_at_all(self, store: Store) -> None:
        # One of its comparisons' ids is taken: none of the others may be stored.
        add(store, event(event_id="e1#2"))
        before = rows(store)
        assert reasons(add(store, ranking("a", "b", "c", event_id="e1"))) == [ConflictError]
        assert rows(store) == before

    def test_twice_in_one_call(self, store: Store) -> None:
        outcomes = add(
            store,
            ranking("a", "b", "c", event_id="e1"),
            ranking("a", "b", "c", event_id="e1"),
            ranking("c", "b", "a", event_id="e1"),
        )
        assert (accepted(outcomes), reasons(outcomes)) == ([True, False, False], [None, None, ConflictError])
        assert rows(store)["mrm_comparisons"] == 3


class TestForget:
    def test_ratings_go_and_are_counted(self, store: Store) -> None:
        add(store, rating("yes"), rating("no", prompt="why?"), rating("shared"))
        add(store, rating("shared", user="bob"), event("cleo", "hers", "yes"))
        counts = store.forget("ada")
        assert counts["mrm_ratings"] == 3
        # What another user rated or compared stays.
        assert (counts["mrm_items"], counts["mrm_item_features"], counts["mrm_users"]) == (1, 1, 1)
        assert set(store.items([Item.of(None, text).key for text in ("yes", "no", "shared")])) == {
            Item.of(None, "yes").key,
            Item.of(None, "shared").key,
        }
        assert store.forget("cleo")["mrm_items"] == 2
        assert store.forget("bob") | {"mrm_users": 0} == {**dict.fromkeys(counts, 0), "mrm_ratings": 1} | {
            "mrm_items": 1,
            "mrm_item_features": 1,
        }
        assert set(rows(store)) == {"mrm_tombstones"}

    @pytest.mark.parametrize("ahead", [False, True])
    def test_older_ones_stay_out(self, store: Store, ahead: bool) -> None:
        when = NOW + FAR if ahead else NOW - FAR
        events = [rating(event_id="e1", created_at=when), ranking("a", "b", "c", event_id="e2", created_at=when)]
        add(store, events[0])
        store.forget("ada")
        expected = [UserForgottenError, None if ahead else UserForgottenError]
        if not ahead:
            assert reasons(add(store, *events)) == expected
        else:
            assert reasons(add(store, events[0])) == expected[:1]
        assert "mrm_ratings" not in rows(store)


def test_tenants_are_apart(store: Store, database: Database) -> None:
    other = Store(database, "globex")
    add(store, rating(event_id="e1"))
    assert other.feedback("ada", FEATURES).ratings == []
    assert accepted(add(other, rating(value=2, event_id="e1"))) == [True]
    other.forget("ada")
    assert values(store) == [4]
