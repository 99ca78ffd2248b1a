"""Two writers on one PostgreSQL, made to meet at the worst moment: between one statement and the next.

On SQLite a writer holds the one write lock from its first statement on, so nothing can come in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from mrm_sdk.errors import EventExpiredError, UserForgottenError
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


class Meeting:
    """A rival's work, started in the midst of another transaction; it runs on where it has to wait for that."""

    def __init__(self, rival: Store, work: Callable[[], Any]) -> None:
        self._rival, self._work = rival, work
        self._pool = ThreadPoolExecutor(1)
        self._future: Future[Any] | None = None

    def happen(self) -> None:
        """Starts the work, once, and comes back when it is done or waits for a lock."""
        if self._future is not None:
            return
        self._future = self._pool.submit(self._work)
        while not wait([self._future], timeout=0.02).done and not self._waits():
            pass

    def result(self) -> Any:
        """What the rival's work returned, whenever it could."""
        assert self._future is not None, "they never met"
        result = self._future.result(timeout=30)
        self._pool.shutdown()
        return result

    def _waits(self) -> bool:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        with self._rival.database.engine.connect() as connection:
            return bool(connection.exec_driver_sql(query).scalar())


def before(store: Store, statement: str, rival: Store, work: Callable[[], Any]) -> Meeting:
    """Has the rival start right before the store's first statement that begins so."""
    meeting = Meeting(rival, work)

    def meet(_connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
        if sql.startswith(statement):
            meeting.happen()

    sa.event.listen(store.database.engine, "before_cursor_execute", meet)
    return meeting


def test_the_same_event_from_two_processes(store: Store, rival: Store) -> None:
    e = event(event_id="e1")
    met = before(store, "INSERT INTO mrm_users", rival, lambda: add_encoded(rival, e))
    outcomes = add_encoded(store, e)
    both = [*outcomes, *met.result()]
    assert sorted(accepted(both)) == [False, True]
    assert reasons(both) == [None, None]


@pytest.mark.parametrize("statement", ["SELECT mrm_tombstones", "INSERT INTO mrm_users", "INSERT INTO mrm_comparisons"])
def test_an_event_whose_user_is_forgotten_meanwhile(store: Store, rival: Store, statement: str) -> None:
    old = event(event_id="e1", created_at=datetime.now(UTC) - timedelta(days=1))
    met = before(store, statement, rival, lambda: rival.forget("ada"))
    outcomes = store.add([old])
    met.result()
    assert reasons(outcomes) in ([UserForgottenError], [None])  # either may come first
    assert rival.feedback("ada", FEATURES).event_ids == []
    assert reasons(rival.add([old])) == [UserForgottenError]


@pytest.mark.parametrize("statement", ["DELETE FROM mrm_comparisons", "DELETE FROM mrm_item_features"])
def test_an_item_that_another_user_judges_while_it_is_forgotten(store: Store, rival: Store, statement: str) -> None:
    add_encoded(store, event("ada", "shared", "ada's"))
    late = event("bob", "shared", "bob's", event_id="e2")
    met = before(store, statement, rival, lambda: add_encoded(rival, late))
    assert store.forget("ada")["mrm_comparisons"] == 1
    assert accepted(met.result()) == [True]
    items = store.items([late.chosen.key, late.rejected.key])
    assert set(items) == {late.chosen.key, late.rejected.key}


def test_weights_of_a_user_who_is_forgotten_meanwhile(store: Store, rival: Store) -> None:
    store.add([event()])
    mine = weights(store)
    met = before(store, "INSERT INTO mrm_user_weights", rival, lambda: rival.forget("ada"))
    store.save_weights("ada", FINGERPRINT, mine)
    met.result()
    assert store.weights("ada", FINGERPRINT) == (0, None)
    assert not store.save_weights("ada", FINGERPRINT, mine)


def test_features_of_an_event_that_is_forgotten_meanwhile(store: Store, rival: Store) -> None:
    e = event(event_id="e1")
    store.add([e])
    met = before(store, "INSERT INTO mrm_item_features", rival, lambda: rival.forget("ada"))
    vector = np.ones(3, np.float32)
    store.add_features(FEATURES, {"e1": vector}, {e.chosen.key: vector})
    met.result()
    assert store.base_rewards(FEATURES, [e.chosen.key]) == {}


def test_forgetting_and_recording_the_same_items_from_eight_threads(store: Store) -> None:
    def work(thread: int) -> None:
        for n in range(15):
            add_encoded(store, *(event(f"u{thread}", f"x{i}", f"y{n % 2}") for i in range(6)))
            store.forget(f"u{thread}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert [store.feedback(f"u{thread}", FEATURES).event_ids for thread in range(8)] == [[]] * 8


@pytest.mark.parametrize("statement", ["DELETE FROM mrm_comparisons", "DELETE FROM mrm_item_features"])
def test_an_item_that_another_user_judges_while_it_is_pruned(store: Store, rival: Store, statement: str) -> None:
    line = datetime.now(UTC) - timedelta(days=1)
    add_encoded(store, event("ada", "shared", "ada's", created_at=line - timedelta(days=1)))
    late = event("bob", "shared", "bob's", event_id="e2")
    met = before(store, statement, rival, lambda: add_encoded(rival, late))
    assert store.prune(line)[1]["mrm_comparisons"] == 1
    assert accepted(met.result()) == [True]
    keys = {late.chosen.key, late.rejected.key}
    assert set(store.items(keys)) == set(store.base_rewards(FEATURES, keys)) == keys


@pytest.mark.parametrize("statement", ["SELECT mrm_tombstones", "INSERT INTO mrm_users", "INSERT INTO mrm_comparisons"])
def test_an_old_event_that_comes_while_the_line_is_drawn(store: Store, rival: Store, statement: str) -> None:
    line = datetime.now(UTC) - timedelta(days=1)
    old = event(event_id="e1", created_at=line - timedelta(days=1))
    met = before(store, statement, rival, lambda: rival.prune(line))
    assert accepted(store.add([old])) == [True]
    assert met.result()[1]["mrm_comparisons"] == 1
    assert reasons(rival.add([old])) == [EventExpiredError]


def test_an_old_event_that_comes_just_after(store: Store, rival: Store) -> None:
    line = datetime.now(UTC) - timedelta(days=1)
    old = event(event_id="e1", created_at=line - timedelta(days=1))
    met = before(store, "INSERT INTO mrm_retention", rival, lambda: rival.add([old]))
    store.prune(line)
    assert reasons(met.result()) == [EventExpiredError]


def test_two_who_prune(store: Store, rival: Store) -> None:
    line = datetime.now(UTC) - timedelta(days=1)
    add_encoded(store, *(event("ada", f"x{n}", created_at=line - timedelta(days=n)) for n in range(4)))
    met = before(store, "DELETE FROM mrm_comparison_features", rival, lambda: rival.prune(line))
    counts = [store.prune(line)[1]["mrm_comparisons"], met.result()[1]["mrm_comparisons"]]
    assert sorted(counts) == [0, 3]
    assert store.feedback("ada", FEATURES).event_ids != []


def test_weights_of_a_user_who_is_pruned_meanwhile(store: Store, rival: Store) -> None:
    line = datetime.now(UTC) - timedelta(days=1)
    store.add([event(), event("ada", "old", created_at=line - timedelta(days=1))])
    mine = weights(store)
    met = before(store, "INSERT INTO mrm_user_weights", rival, lambda: rival.prune(line))
    store.save_weights("ada", FINGERPRINT, mine)
    met.result()
    assert store.weights("ada", FINGERPRINT)[1] is None
