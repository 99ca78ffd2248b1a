"""How old each judgement is comes out of every database as it went in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np

from mrm_sdk.storage import Database, Store
from tests.storage.events import FEATURES, event


def test_times_to_the_microsecond_in_the_order_of_event_ids(database: Database) -> None:
    store = Store(database, "acme")
    moment = datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    times = {"e2": moment, "e1": moment + timedelta(microseconds=1), "e3": moment - timedelta(days=900)}
    events = [event("ada", name, event_id=name, created_at=at) for name, at in times.items()]
    rewards = {e.chosen.key: np.ones(3, np.float32) for e in events if e.source.event_id != "e2"}
    rewards[events[0].rejected.key] = np.zeros(3, np.float32)
    store.add(events, features_hash=FEATURES, base_rewards=rewards)
    assert store.feedback("ada", FEATURES).created_at is None  # not asked for
    feedback = store.feedback("ada", FEATURES, dated=True)
    assert feedback.created_at is not None
    assert feedback.created_at == [times[name] for name in feedback.event_ids]
    assert {at.tzinfo for at in feedback.created_at} == {UTC}
    assert feedback.encoded().created_at == [times["e1"], times["e3"]]
