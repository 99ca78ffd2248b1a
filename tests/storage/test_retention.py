"""Events that are too old go, with what was made of them, and stay away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from mrm_sdk.aclient import AsyncClient
from mrm_sdk.bundle import Bundle
from mrm_sdk.client import Client
from mrm_sdk.errors import EventExpiredError, InvalidInputError
from mrm_sdk.feedback import Ranking, Rating
from mrm_sdk.schemas import Comparison, Item
from mrm_sdk.storage import Database, Store
from mrm_sdk.storage.records import event_of
from mrm_sdk.storage.tables import Base, OutboxRow
from tests.small_encoders import CountingEncoder
from tests.storage.events import FEATURES, FINGERPRINT, accepted, add_encoded, event, reasons, weights

NOW = datetime.now(UTC)
OLD, LINE, NEW = NOW - timedelta(days=90), NOW - timedelta(days=60), NOW - timedelta(days=30)
# What has no age: bundles and keys are the host's, a tombstone stays, and the line is what pruning leaves.
NOT_PRUNED = {"mrm_bundles", "mrm_api_keys", "mrm_tombstones", "mrm_retention"}


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database, "acme")


@pytest.fixture
def client(url: str, embedded_bundle: Bundle) -> Iterator[Client]:
    with Client(url, bundle=embedded_bundle, encoder=CountingEncoder()) as client:
        yield client


def went(counts: dict[str, int]) -> dict[str, int]:
    return {name: n for name, n in counts.items() if n}


def said(n: int, moment: datetime, user: str = "ada") -> Comparison:
    return Comparison(user_id=user, chosen=f"{user} {n}", rejected="no", event_id=f"{user}{n}", created_at=moment)


class TestPrune:
    def test_counts_what_went(self, store: Store) -> None:
        old, new = event(event_id="e1", z=[1, 2, 3], created_at=OLD), event("ada", "new", created_at=NEW, z=[1, 2, 3])
        gone = event("bob", "bob's", "no", event_id="e2", z=[1, 2, 3], created_at=OLD)
        add_encoded(store, old, new, gone)
        rating = event_of(Rating(user_id="bob", response="rated", value=1, created_at=OLD))
        store.add([rating], features=FEATURES, base_rewards={rating.items[0].key: np.ones(3, np.float32)})
        store.save_weights("ada", FINGERPRINT, weights(store))
        with store.database.transaction(write=True) as connection:
            for event_id in ("e1", "elsewhere"):
                row = {"event_id": event_id, "user_id": "ada", "kind": "comparison", "created_at": OLD}
                connection.execute(sa.insert(OutboxRow).values(tenant="acme", **row))
        before, counts = store.prune(LINE)
        assert before == LINE
        assert set(counts) == set(Base.metadata.tables) - NOT_PRUNED  # a new table must say what becomes of its rows
        assert counts == {
            "mrm_users": 1,
            "mrm_items": 3,
            "mrm_item_features": 3,
            "mrm_comparisons": 2,
            "mrm_comparison_features": 2,
            "mrm_ratings": 1,
            "mrm_user_weights": 1,
            "mrm_outbox": 1,
        }
        assert store.feedback("ada", FEATURES).event_ids == [new.comparison.event_id]
        assert set(store.items([e.key for e in (*old.items, *gone.items)])) == {Item.of(None, "no").key}
        assert store.weights("bob", FINGERPRINT) == (0, None)
        assert went(store.prune(LINE)[1]) == {}

    def test_what_arrives_again_stays_out(self, store: Store) -> None:
        old, new = event(event_id="e1", created_at=OLD), event(event_id="e2", created_at=NEW)
        rated = event_of(Rating(user_id="ada", response="x", value=1, event_id="e3", created_at=OLD))
        ranked = event_of(Ranking(user_id="ada", responses=["x", "y", "z"], event_id="e4", created_at=OLD))
        store.add([old, new, rated, ranked])
        store.prune(LINE)
        unseen = event("bob", event_id="e5", created_at=OLD)
        outcomes = store.add([old, new, rated, ranked, unseen, event(event_id="e6")])
        assert accepted(outcomes) == [False, False, False, False, False, True]
        expired = EventExpiredError
        assert reasons(outcomes) == [expired, None, expired, expired, expired, None]
        assert store.feedback("ada", FEATURES).event_ids == ["e2", "e6"]
        assert store.weights("bob", FINGERPRINT) == (0, None)

    def test_to_the_microsecond(self, store: Store) -> None:
        just, exact = event(event_id="e1", created_at=LINE - timedelta(microseconds=1)), event(created_at=LINE)
        store.add([just, exact])
        assert store.prune(LINE)[1]["mrm_comparisons"] == 1
        assert reasons(store.add([just, exact])) == [EventExpiredError, None]

    def test_the_line_never_moves_back(self, store: Store) -> None:
        store.prune(LINE)
        assert store.prune(OLD)[0] == LINE
        assert reasons(store.add([event(created_at=LINE - timedelta(hours=1))])) == [EventExpiredError]
        later, _ = store.prune(NEW)
        assert later == NEW
        assert reasons(store.add([event(created_at=LINE)])) == [EventExpiredError]

    @pytest.mark.parametrize("kept", [NEW, OLD], ids=["some remains", "nothing remains"])
    def test_whoever_was_adapting_a_user_starts_again(self, store: Store, kept: datetime) -> None:
        store.add([event(created_at=OLD), event("ada", "x", created_at=kept)])
        late = weights(store)
        store.prune(LINE)
        assert not store.save_weights("ada", FINGERPRINT, late)
        assert store.weights("ada", FINGERPRINT)[1] is None

    def test_weights_that_have_not_seen_it_stay(self, store: Store) -> None:
        store.add([event("bob", created_at=OLD), event(created_at=NEW)])
        given, _ = store.weights("ada", FINGERPRINT)
        store.save_weights("ada", FINGERPRINT, weights(store))
        store.prune(LINE)
        now, stored = store.weights("ada", FINGERPRINT)
        assert now == given
        assert stored is not None

    def test_items_that_others_judge_stay(self, store: Store) -> None:
        add_encoded(store, event("ada", "shared", "ada's", created_at=OLD), event("bob", "bob's", "shared"))
        assert went(store.prune(LINE)[1])["mrm_items"] == 1
        shared = Item.of(None, "shared").key
        assert list(store.items([shared])) == [shared] == list(store.base_rewards(FEATURES, [shared]))

    def test_tombstones_stay(self, store: Store) -> None:
        store.forget("ada")
        store.prune(datetime.now(UTC))
        assert len(store.export("ada")["tombstones"]) == 1


class TestClient:
    def test_weights_are_those_of_what_remains(self, client: Client, embedded_bundle: Bundle) -> None:
        old, new = [said(n, OLD) for n in range(5)], [said(n, NEW) for n in range(5, 9)]
        client.record_many([*old, *new, said(0, OLD, "bob")])
        before = [client.personalize(user) for user in ("ada", "bob")]
        pruned = client.prune(older_than=timedelta(days=60))
        assert pruned.before == pytest.approx(LINE, abs=timedelta(hours=1))
        assert (pruned.rows["mrm_comparisons"], pruned.rows["mrm_user_weights"]) == (6, 2)
        after = client.personalize("ada")
        with Client("sqlite://", bundle=embedded_bundle, encoder=CountingEncoder()) as fresh:
            fresh.record_many(new)
            np.testing.assert_array_equal(after.weights, fresh.personalize("ada").weights)
            np.testing.assert_array_equal(client.personalize("bob").weights, fresh.personalize("bob").weights)
        assert (after.comparisons, before[0].comparisons) == (4, 9)
        assert not np.array_equal(before[1].weights, client.personalize("bob").weights)
        recorded = client.record_many([*old, *new])
        assert (recorded.accepted, recorded.duplicates, len(recorded.rejected)) == (0, 4, 5)
        with pytest.raises(EventExpiredError, match="pruned"):
            client.record(old[0])

    def test_a_moment_in_any_zone(self, client: Client) -> None:
        client.record_many([said(0, OLD), said(1, NEW)])
        pruned = client.prune(older_than=LINE.astimezone())
        assert (pruned.before, pruned.rows["mrm_comparisons"]) == (LINE, 1)

    @pytest.mark.parametrize(
        "value",
        [
            timedelta(seconds=-1),
            timedelta.max,
            NOW + timedelta(hours=1),
            datetime(2020, 1, 1),
            datetime.max.replace(tzinfo=UTC),
            30,
            "90d",
            None,
        ],
    )
    def test_what_is_no_age(self, client: Client, value: Any) -> None:
        client.record(said(0, OLD))
        with pytest.raises(InvalidInputError, match="older_than"):
            client.prune(older_than=value)
        assert client.personalize("ada").comparisons == 1

    def test_another_tenant_keeps_its_own(self, client: Client, url: str, embedded_bundle: Bundle) -> None:
        with Client(url, bundle=embedded_bundle, encoder=CountingEncoder(), tenant="other") as other:
            for each in (client, other):
                each.record(said(0, OLD))
            client.prune(older_than=LINE)
            assert other.personalize("ada").comparisons == 1
            assert other.record(said(1, OLD)).accepted == 1

    def test_awaited(self, url: str, embedded_bundle: Bundle) -> None:
        async def use() -> dict[str, int]:
            async with AsyncClient(url, bundle=embedded_bundle, encoder=CountingEncoder()) as client:
                await client.record(said(0, OLD))
                return dict((await client.prune(older_than=timedelta(days=60))).rows)

        assert went(asyncio.run(use())) == {
            "mrm_users": 1,
            "mrm_items": 2,
            "mrm_item_features": 2,
            "mrm_comparisons": 1,
            "mrm_comparison_features": 1,
        }
