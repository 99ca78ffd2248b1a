"""Two writers on one PostgreSQL, made to meet at the worst moment: between one statement and the next.

On SQLite a writer holds the one write lock from its first statement on, so nothing can come in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from mrm_sdk.errors import UserForgottenError
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database, Store
from tests.storage.events import FEATURES, FINGERPRINT, accepted, add_encoded, event, reasons, weights


@pytest.fixture
def store(postgres_database: Database) -> Store:
    return Store(postgres_database, "acme")


@pytest.fixture
def rival(postgres_url: str, postgres_database: Database) -> Iterator[Store]:
    """The same tables, seen by another process."""
    database = Database(postgres_url, Settings())
    yield Store(database, "acme")
    database.close()


def before(store: Store, statement: str, work: Callable[[], Any]) -> list[Any]:
    """Has ``work`` run once, right before the store's first statement that begins so; returns what it returned."""
    done: list[Any] = []

    def meet(_connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
        if sql.startswith(statement) and not done:
            done.append(None)
            done[0] = work()

    sa.event.listen(store.database.engine, "before_cursor_execute", meet)
    return done


def test_the_same_event_from_two_processes(store: Store, rival: Store) -> None:
    e = event(event_id="e1", z=[1, 2, 3])
    met = before(store, "INSERT INTO mrm_users", lambda: add_encoded(rival, e))
    outcomes = add_encoded(store, e)
    assert (accepted(met[0]), accepted(outcomes), reasons(outcomes)) == ([True], [False], [None])


def test_an_event_that_its_users_deletion_overtakes(store: Store, rival: Store) -> None:
    old = event(event_id="e1", created_at=datetime.now(UTC) - timedelta(days=1))
    met = before(store, "INSERT INTO mrm_users", lambda: rival.forget("ada"))
    outcomes = store.add([old])
    assert met
    assert reasons(outcomes) == [UserForgottenError]
    assert rival.feedback("ada", FEATURES).event_ids == []


def test_an_item_that_another_user_judges_while_it_is_forgotten(store: Store, rival: Store) -> None:
    add_encoded(store, event("ada", "shared", "ada's"))
    late = event("bob", "shared", "bob's", event_id="e2")
    met = before(store, "DELETE FROM mrm_item_features", lambda: add_encoded(rival, late))
    assert store.forget("ada")["mrm_comparisons"] == 1
    assert accepted(met[0]) == [True]
    found = store.items([late.chosen.key, late.rejected.key])
    assert set(found) == {late.chosen.key, late.rejected.key}


def test_weights_of_a_user_who_is_forgotten_meanwhile(store: Store, rival: Store) -> None:
    store.add([event()])
    met = before(store, "INSERT INTO mrm_user_weights", lambda: rival.forget("ada"))
    assert not store.save_weights("ada", FINGERPRINT, weights())
    assert met
    assert store.weights("ada", FINGERPRINT) == (0, None)


def test_features_of_an_event_that_is_forgotten_meanwhile(store: Store, rival: Store) -> None:
    e = event(event_id="e1", z=[1, 2, 3])
    store.add([e])
    met = before(store, "INSERT INTO mrm_item_features", lambda: rival.forget("ada"))
    assert e.z is not None
    store.add_features(FEATURES, {"e1": e.z}, {e.chosen.key: e.z})
    assert met
    assert store.base_rewards(FEATURES, [e.chosen.key]) == {}


def test_forgetting_and_recording_the_same_items_from_eight_threads(store: Store) -> None:
    def work(thread: int) -> None:
        for n in range(15):
            add_encoded(store, *(event(f"u{thread}", f"x{i}", f"y{n % 2}") for i in range(6)))
            store.forget(f"u{thread}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert [store.feedback(f"u{thread}", FEATURES).event_ids for thread in range(8)] == [[]] * 8
