"""What every database must do alike."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import sqlalchemy as sa

from mrm_sdk.errors import ConflictError, UserForgottenError
from mrm_sdk.schemas.items import Item, Response
from mrm_sdk.storage import ComparisonEvent, Database, Store
from mrm_sdk.storage.tables import Base, OutboxRow, TombstoneRow
from tests.storage.events import FEATURES, FINGERPRINT, accepted, add_encoded, event, reasons, weights

LATER = timedelta(days=1)
# What no user owns: bundles, keys and the line of retention are the host's, a tombstone is what remains.
NOT_FORGOTTEN = {"mrm_bundles", "mrm_api_keys", "mrm_tombstones", "mrm_retention"}


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database, "acme")


@pytest.fixture
def other(database: Database) -> Store:
    return Store(database, "globex")


def rows(store: Store, tenant: str | None = None) -> dict[str, int]:
    """Rows per table of a tenant."""
    with store.database.transaction() as connection:
        return {
            name: connection.scalar(
                sa.select(sa.func.count()).select_from(table).where(table.c.tenant == (tenant or store.tenant))
            )
            or 0
            for name, table in Base.metadata.tables.items()
        }


class TestAdd:
    def test_new_then_duplicate_then_conflict(self, store: Store) -> None:
        first = event(event_id="e1", strength=2.0)
        assert accepted(store.add([first])) == [True]
        # A retry comes later, and is still the same event.
        again = event(event_id="e1", strength=2.0, created_at=datetime.now(UTC) + LATER)
        outcome = store.add([again])
        assert (accepted(outcome), reasons(outcome)) == ([False], [None])
        for change in (
            event(event_id="e1", strength=2.5),
            event(event_id="e1", strength=2.0, tie=True),
            event(event_id="e1", strength=2.0, prompt="why?"),
            event("bob", event_id="e1", strength=2.0),
            event("ada", "no", "yes", event_id="e1", strength=2.0),
        ):
            outcome = store.add([change])
            assert (accepted(outcome), reasons(outcome)) == ([False], [ConflictError])
        assert rows(store)["mrm_comparisons"] == 1
        assert store.feedback("ada", FEATURES).strength == [2.0]

    def test_same_id_twice_in_one_call(self, store: Store) -> None:
        same, changed = event(event_id="e1"), event(event_id="e1", tie=True)
        outcomes = store.add([same, event(event_id="e2"), same, changed])
        assert accepted(outcomes) == [True, True, False, False]
        assert reasons(outcomes) == [None, None, None, ConflictError]
        assert store.feedback("ada", FEATURES).event_ids == ["e1", "e2"]

    def test_nothing_to_add(self, store: Store) -> None:
        assert store.add([]) == []

    def test_refused_events_leave_no_trace(self, store: Store) -> None:
        store.add([event(event_id="e1")])
        before = rows(store)
        store.add([event("bob", "secret", "other", event_id="e1")])
        assert rows(store) == before

    def test_feedback_counter_grows_with_accepted_events_only(self, store: Store) -> None:
        assert store.weights("ada", FINGERPRINT) == (0, None)
        store.add([event(event_id="e1"), event("bob", event_id="e2"), event(event_id="e3")])
        first, _ = store.weights("ada", FINGERPRINT)
        assert first > 0
        store.add([event(event_id="e1"), event(event_id="e3", tie=True)])
        assert store.weights("ada", FINGERPRINT)[0] == store.feedback("ada", FEATURES).feedback_version == first
        store.add([event(event_id="e4")])
        assert store.weights("ada", FINGERPRINT)[0] > first

    def test_feedback_comes_back_in_order_of_event_ids(self, store: Store) -> None:
        z = {name: np.array([number, 0.1, -number], np.float32) for number, name in enumerate("abc")}
        events = {name: event("ada", name, event_id=name, tie=name == "b", strength=3.5) for name in "abc"}
        rewards = {e.chosen.key: z[name] for name, e in events.items()}
        rewards[events["a"].rejected.key] = np.zeros(3, np.float32)
        store.add([events[name] for name in "cab"], features_hash=FEATURES, base_rewards=rewards)
        feedback = store.feedback("ada", FEATURES)
        assert feedback.event_ids == ["a", "b", "c"]
        assert feedback.tie == [False, True, False]
        assert feedback.strength == [3.5] * 3
        assert [value.tolist() for value in feedback.z if value is not None] == [z[n].tolist() for n in "abc"]
        assert feedback.items[0] == (Item.of(None, "a").key, Item.of(None, "no").key)
        assert store.feedback("ada", "e" * 64).z == [None] * 3

    def test_time_survives_in_its_zone(self, store: Store) -> None:
        # Forgetting compares times: a zone lost on the way would let old events in, or keep new ones out.
        store.forget("ada")
        with store.database.transaction() as connection:
            forgotten = connection.scalar(sa.select(TombstoneRow.forgotten_at))
        assert forgotten is not None
        assert abs(forgotten - datetime.now(UTC)) < timedelta(minutes=5)

    def test_eight_threads_lose_nothing(self, store: Store) -> None:
        def work(thread: int) -> int:
            batches = (
                # Users and items are shared by all threads, events are not.
                [
                    event(f"u{n % 3}", f"x{n % 5}", f"y{n % 7}", event_id=f"{thread}-{n}")
                    for n in range(start, start + 5)
                ]
                for start in range(0, 40, 5)
            )
            return sum(outcome.accepted for batch in batches for outcome in add_encoded(store, *batch))

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(work, range(8))) == 320
        assert rows(store)["mrm_comparisons"] == 320
        assert sum(len(store.feedback(f"u{n}", FEATURES).event_ids) for n in range(3)) == 320

    def test_same_events_from_eight_threads_are_stored_once(self, store: Store) -> None:
        events = [event(event_id=f"e{n}", chosen=f"x{n}") for n in range(20)]
        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(lambda _: add_encoded(store, *events), range(8)))
        assert sum(outcome.accepted for batch in outcomes for outcome in batch) == 20
        assert {outcome.error for batch in outcomes for outcome in batch} == {None}


class TestItems:
    def test_round_trip(self, store: Store) -> None:
        vector = Response(text="both", embedding=[0.1, -2.0, 3e30])
        items = [
            Item.of("prompt ü", "text 🎉"),
            Item.of(None, vector),
            Item.of([{"role": "user", "content": "hi"}], ""),
            Item.of(None, Response(embedding=[1.0])),
        ]
        comparison = event().source
        store.add(
            [ComparisonEvent(comparison, items[0], items[1]), ComparisonEvent(event().source, items[2], items[3])]
        )
        stored = store.items([item.key for item in items] + [b"?" * 32])
        assert set(stored) == {item.key for item in items}
        for item in items:
            assert (stored[item.key].prompt, stored[item.key].text) == (item.prompt, item.text)
            assert stored[item.key].key == item.key

    def test_base_rewards(self, store: Store) -> None:
        e = event()
        rewards = {e.chosen.key: np.array([0.1, 0.2, 0.3], np.float32)}
        store.add([e], features_hash=FEATURES, base_rewards=rewards)
        stored = store.base_rewards(FEATURES, [e.chosen.key, e.rejected.key, b"?" * 32])
        assert list(stored) == [e.chosen.key]
        np.testing.assert_array_equal(stored[e.chosen.key], rewards[e.chosen.key])
        assert store.base_rewards("e" * 64, [e.chosen.key]) == {}

    def test_features_added_later(self, store: Store) -> None:
        e = event(event_id="e1")
        store.add([e])
        assert store.feedback("ada", FEATURES).z == [None]
        gone = Item.of(None, "never stored").key
        z = {"e1": np.array([1, 2, 3], np.float32), "never stored": np.zeros(3, np.float32)}
        store.add_features(FEATURES, z, {e.chosen.key: np.ones(3, np.float32), gone: np.zeros(3, np.float32)})
        (value,) = store.feedback("ada", FEATURES).z
        assert value is not None
        assert value.tolist() == [1, 2, 3]
        assert list(store.base_rewards(FEATURES, [e.chosen.key, gone])) == [e.chosen.key]
        # What is there already stays.
        store.add_features(FEATURES, {"e1": np.zeros(3, np.float32)}, {})
        (value,) = store.feedback("ada", FEATURES).z
        assert value is not None
        assert value.tolist() == [1, 2, 3]

    @pytest.mark.slow
    def test_no_limit_on_how_many_are_asked_for(self, store: Store) -> None:
        # SQLite takes 32,766 parameters by default, PostgreSQL 65,535.
        e = event(event_id="e1")
        add_encoded(store, e)
        keys = [number.to_bytes(32) for number in range(260_000)] + [e.chosen.key]
        assert list(store.items(keys)) == [e.chosen.key]
        assert list(store.base_rewards(FEATURES, keys)) == [e.chosen.key]

    def test_no_limit_on_how_many_features_are_added(self, store: Store) -> None:
        store.add([event(event_id="e1")])
        zero = np.zeros(3, np.float32)
        store.add_features(FEATURES, {f"e{n}": zero for n in range(260_000)}, {})
        assert rows(store)["mrm_comparison_features"] == 1


class TestWeights:
    def test_round_trip(self, store: Store) -> None:
        store.add([event()])
        assert store.save_weights("ada", FINGERPRINT, weights(store, value=1 / 3))
        count, stored = store.weights("ada", FINGERPRINT)
        assert stored is not None
        np.testing.assert_array_equal(stored.weights, np.full(3, 1 / 3))
        np.testing.assert_array_equal(stored.covariance, np.eye(3) / 3)
        assert (stored.comparisons, stored.feedback_version, stored.revision) == (1, count, 1)
        assert store.weights("ada", "a" * 64) == (count, None)

    def test_compare_and_set(self, store: Store) -> None:
        store.add([event()])
        assert not store.save_weights("ada", FINGERPRINT, weights(store, 2))  # there is no first
        assert store.save_weights("ada", FINGERPRINT, weights(store, 1, value=0.1))
        assert not store.save_weights("ada", FINGERPRINT, weights(store, 1, value=0.2))  # another process was faster
        assert store.save_weights("ada", FINGERPRINT, weights(store, 2, value=0.3))
        assert not store.save_weights("ada", FINGERPRINT, weights(store, 2, value=0.4))
        _, stored = store.weights("ada", FINGERPRINT)
        assert stored is not None
        assert (stored.revision, stored.weights[0]) == (2, 0.3)

    def test_refused_where_there_is_newer_feedback(self, store: Store) -> None:
        store.add([event()])
        first, second = weights(store, 1), weights(store, 2)
        assert store.save_weights("ada", FINGERPRINT, first)
        store.add([event()])
        assert not store.save_weights("ada", FINGERPRINT, second)
        assert not store.save_weights("ada", "a" * 64, first)

    def test_one_of_eight_threads_wins(self, store: Store) -> None:
        store.add([event()])
        mine = weights(store)
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda _: store.save_weights("ada", FINGERPRINT, mine), range(8)))
        assert sum(won) == 1

    @pytest.mark.parametrize("revision", [1, 2])
    def test_refused_for_a_forgotten_user(self, store: Store, revision: int) -> None:
        store.add([event()])
        late = weights(store, revision)
        store.save_weights("ada", FINGERPRINT, weights(store))
        store.forget("ada")
        assert not store.save_weights("ada", FINGERPRINT, late)
        assert rows(store)["mrm_user_weights"] == 0

    def test_refused_for_a_user_who_was_forgotten_and_came_back(self, store: Store) -> None:
        # Weights from deleted comparisons must not pass for those of the new ones.
        store.add([event()])
        late = weights(store)
        store.forget("ada")
        store.add([event("ada", "other", "texts", created_at=datetime.now(UTC) + LATER)])
        assert not store.save_weights("ada", FINGERPRINT, late)
        assert store.weights("ada", FINGERPRINT)[1] is None


class TestForget:
    def test_counts_what_went(self, store: Store) -> None:
        e1, e2 = event(event_id="e1"), event("ada", "yes", "maybe", event_id="e2")
        add_encoded(store, e1, e2)
        store.save_weights("ada", FINGERPRINT, weights(store))
        with store.database.transaction(write=True) as connection:
            waiting = {"event_id": "e1", "user_id": "ada", "kind": "comparison", "created_at": datetime.now(UTC)}
            connection.execute(sa.insert(OutboxRow).values(tenant="acme", **waiting))
        assert store.forget("ada") == {
            "mrm_users": 1,
            "mrm_items": 3,
            "mrm_item_features": 3,
            "mrm_comparisons": 2,
            "mrm_comparison_features": 2,
            "mrm_ratings": 0,
            "mrm_user_weights": 1,
            "mrm_outbox": 1,
        }
        assert {name for name, n in rows(store).items() if n} == {"mrm_tombstones"}

    def test_counts_every_table_that_may_hold_a_user(self, store: Store) -> None:
        # A table added later must say here whether a user's rows are in it.
        assert set(store.forget("unknown")) == set(Base.metadata.tables) - NOT_FORGOTTEN
        assert set(store.forget("unknown").values()) == {0}

    def test_older_events_stay_out_and_later_ones_come_in(self, store: Store) -> None:
        old = event(event_id="e1")
        store.add([old])
        store.forget("ada")
        unseen = event(event_id="e2", created_at=datetime.now(UTC) - LATER)
        outcomes = store.add([old, unseen, event("bob", event_id="e3", created_at=unseen.source.created_at)])
        assert (accepted(outcomes), reasons(outcomes)) == (
            [False, False, True],
            [UserForgottenError, UserForgottenError, None],
        )
        assert store.weights("ada", FINGERPRINT) == (0, None)
        assert accepted(store.add([event(event_id="e4")])) == [True]
        assert store.feedback("ada", FEATURES).event_ids == ["e4"]

    def test_an_event_from_a_clock_that_is_ahead_stays_out_too(self, store: Store) -> None:
        ahead = event(event_id="e1", created_at=datetime.now(UTC) + timedelta(hours=5))
        assert accepted(store.add([ahead])) == [True]
        store.forget("ada")
        assert reasons(store.add([ahead])) == [UserForgottenError]

    def test_forgetting_again_moves_the_line(self, store: Store) -> None:
        store.forget("ada")
        between = event(event_id="e1")
        assert accepted(store.add([between])) == [True]
        assert store.forget("ada")["mrm_comparisons"] == 1
        assert reasons(store.add([between])) == [UserForgottenError]

    def test_shared_items_go_with_the_last_user(self, store: Store) -> None:
        add_encoded(store, event("ada", "shared", "ada's"), event("bob", "bob's", "shared"))
        counts = store.forget("ada")
        assert (counts["mrm_items"], counts["mrm_item_features"]) == (1, 1)
        shared = Item.of(None, "shared").key
        assert list(store.items([shared])) == [shared]
        counts = store.forget("bob")
        assert (counts["mrm_items"], counts["mrm_item_features"]) == (2, 2)
        assert store.items([shared]) == {}

    def test_many_items(self, store: Store) -> None:
        add_encoded(store, *(event("ada", f"x{n}", "shared") for n in range(1500)), event("bob", "bob's", "shared"))
        assert store.forget("ada")["mrm_items"] == 1500
        assert rows(store)["mrm_items"] == 2

    def test_forgetting_twice_lets_nothing_back_in(self, store: Store) -> None:
        ahead = event(event_id="e1", created_at=datetime.now(UTC) + timedelta(hours=20))  # by a clock that is wrong
        store.add([ahead])
        for _ in range(2):
            store.forget("ada")
            assert reasons(store.add([ahead])) == [UserForgottenError]


class TestTenants:
    def test_writes_of_one_do_not_reach_the_other(self, store: Store, other: Store) -> None:
        e = event("ada", "canary", "bird", event_id="e1")
        store.add([e])
        other.add_features(FEATURES, {"e1": np.ones(3, np.float32)}, {e.chosen.key: np.ones(3, np.float32)})
        assert not other.save_weights("ada", FINGERPRINT, weights(store))
        assert store.feedback("ada", FEATURES).z == [None]
        # The same id with other content is no conflict: it is another tenant's.
        assert accepted(other.add([event("bob", event_id="e1")])) == [True]

    def test_forgetting_stays_at_home(self, store: Store, other: Store) -> None:
        e = event("ada", event_id="e1")
        for each in (store, other):
            add_encoded(each, e)
            each.save_weights("ada", FINGERPRINT, weights(each))
            each.remember_bundle(fingerprint=FINGERPRINT, features_hash=FEATURES, name="b")
        before = rows(other)
        store.forget("ada")
        assert rows(other) == before
        # The tombstone is not the other tenant's either.
        assert accepted(other.add([event("ada", event_id="e2", created_at=e.source.created_at)])) == [True]


def test_a_bundle_is_remembered_once(store: Store) -> None:
    for _ in range(2):
        store.remember_bundle(fingerprint=FINGERPRINT, features_hash=FEATURES, name="demo")
    assert rows(store)["mrm_bundles"] == 1
