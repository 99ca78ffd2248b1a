"""Events that are too old go, with what was made of them, and stay away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from mrm_sdk.aclient import AsyncClient
from mrm_sdk.bundle import Bundle
from mrm_sdk.client import Client
from mrm_sdk.errors import EventExpiredError, InvalidInputError
from mrm_sdk.schemas.feedback import Comparison, Ranking, Rating
from mrm_sdk.schemas.items import Item
from mrm_sdk.storage import Database, Store
from mrm_sdk.storage.events import event_of
from mrm_sdk.storage.statements import prune as retention
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
        old, new = event(event_id="e1", created_at=OLD), event("ada", "new", created_at=NEW)
        gone = event("bob", "bob's", "no", event_id="e2", created_at=OLD)
        add_encoded(store, old, new, gone)
        rating = event_of(Rating(user_id="bob", response="rated", value=1, created_at=OLD))
        store.add([rating], features_hash=FEATURES, base_rewards={rating.items[0].key: np.ones(3, np.float32)})
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
        assert store.feedback("ada", FEATURES).event_ids == [new.source.event_id]
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
        version, _ = store.weights("ada", FINGERPRINT)
        store.save_weights("ada", FINGERPRINT, weights(store))
        store.prune(LINE)
        now, stored = store.weights("ada", FINGERPRINT)
        assert now == version
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


class TestSteps:
    """Few events a step, so that some other thing can happen between one and the next."""

    @pytest.fixture(autouse=True)
    def _of_two_events(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retention, "EVENTS_PER_STEP", 2)

    @pytest.fixture
    def before_step(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], Any]], None]:
        """Has something happen when the events of a step (0, 1, …) are known, and it has not begun."""
        look, steps = retention._old_event_ids, count()

        def happen(step: int, work: Callable[[], Any]) -> None:
            def old(*arguments: Any) -> Iterator[Any]:
                for events in look(*arguments):
                    if next(steps) == step:
                        work()
                    yield events

            monkeypatch.setattr(retention, "_old_event_ids", old)

        return happen

    def fill(self, store: Store) -> None:
        """Five old comparisons and three old ratings among new ones, of two users; some items are judged often."""
        events = [event("ada", "often", f"a{n}", event_id=f"e{n}", created_at=NEW if n % 3 else OLD) for n in range(13)]
        rated = [("often", OLD), ("r1", OLD), ("a1", OLD), ("often", NEW)]
        add_encoded(store, *events)
        store.add(
            [
                event_of(Rating(user_id="bob", response=text, value=n, event_id=f"r{n}", created_at=moment))
                for n, (text, moment) in enumerate(rated)
            ]
        )
        store.save_weights("ada", FINGERPRINT, weights(store))

    def test_all_go_and_no_other(self, store: Store) -> None:
        self.fill(store)
        counts = went(store.prune(LINE)[1])
        assert counts == {
            "mrm_comparisons": 5,
            "mrm_comparison_features": 5,
            "mrm_ratings": 3,
            "mrm_user_weights": 1,
            "mrm_items": 6,  # what only the old judged: five of ada's, one of bob's
            "mrm_item_features": 5,
        }
        assert store.feedback("ada", FEATURES).event_ids == sorted(f"e{n}" for n in range(13) if n % 3)
        assert [row["event_id"] for row in store.export("bob")["ratings"]] == ["r3"]

    def test_a_step_is_bounded(self, store: Store) -> None:
        self.fill(store)
        deleted: list[int] = []

        def note(_: Any, __: Any, statement: str, parameters: Any, *rest: Any) -> None:
            if statement.startswith(("DELETE FROM mrm_comparisons", "DELETE FROM mrm_ratings")):
                deleted.append(len(parameters) - 1)  # but for the tenant

        sa.event.listen(store.database.engine, "before_cursor_execute", note)
        store.prune(LINE)
        assert deleted == [2, 2, 1, 2, 1]

    def test_an_item_of_two_steps_goes_with_the_last(self, store: Store) -> None:
        add_encoded(store, *(event("ada", "often", f"a{n}", created_at=OLD) for n in range(5)))
        assert went(store.prune(LINE)[1])["mrm_items"] == 6

    @pytest.mark.parametrize(("step", "compared", "rated"), [(0, 5, 3), (1, 3, 3), (4, 0, 1)])
    def test_interrupted_it_goes_on_when_called_again(
        self, store: Store, before_step: Callable[..., None], step: int, compared: int, rated: int
    ) -> None:
        self.fill(store)

        def fail() -> None:
            raise KeyboardInterrupt

        before_step(step, fail)
        with pytest.raises(KeyboardInterrupt):
            store.prune(LINE)
        assert len(store.export("ada")["comparisons"]) == 8 + compared
        assert len(store.export("bob")["ratings"]) == 1 + rated
        assert reasons(store.add([event(event_id="late", created_at=OLD)])) == [EventExpiredError]
        before, counts = store.prune(OLD)
        assert (before, counts["mrm_comparisons"], counts["mrm_ratings"]) == (LINE, compared, rated)

    @pytest.mark.parametrize("step", [0, 1, 2])
    def test_weights_made_meanwhile_have_not_seen_what_goes(
        self, store: Store, before_step: Callable[..., None], step: int
    ) -> None:
        self.fill(store)
        saved: list[bool] = []

        def adapt() -> None:
            _, stored = store.weights("ada", FINGERPRINT)
            saved.append(store.save_weights("ada", FINGERPRINT, weights(store, stored.revision + 1 if stored else 1)))

        before_step(step, adapt)
        store.prune(LINE)
        assert store.weights("ada", FINGERPRINT)[1] is None
        assert saved[0]

    def test_weights_begun_before_a_step_are_refused_after_it(
        self, store: Store, before_step: Callable[..., None]
    ) -> None:
        self.fill(store)
        late = weights(store)
        before_step(1, lambda: saved.append(store.save_weights("ada", FINGERPRINT, late)))
        saved: list[bool] = []
        store.prune(LINE)
        assert saved[0] is False
        assert not store.save_weights("ada", FINGERPRINT, late)

    def test_an_id_that_is_given_anew_meanwhile(self, store: Store, before_step: Callable[..., None]) -> None:
        store.add([event(event_id="e1", created_at=OLD)])
        anew = event("bob", "anew", event_id="e1")

        def replace() -> None:
            store.forget("ada")
            add_encoded(store, anew)

        before_step(0, replace)
        assert went(store.prune(LINE)[1]) == {}
        assert [row["event_id"] for row in store.export("bob")["comparisons"]] == ["e1"]
        assert set(store.base_rewards(FEATURES, [item.key for item in anew.items])) == {i.key for i in anew.items}

    def test_others_write_between_two_steps(self, store: Store, before_step: Callable[..., None]) -> None:
        self.fill(store)
        late = event("eve", "often", "a0")  # a0 has just gone with the first step
        before_step(1, lambda: add_encoded(store, late))
        store.prune(LINE)
        assert set(store.items([item.key for item in late.items])) == {item.key for item in late.items}


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
