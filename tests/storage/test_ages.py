"""How old each judgement is comes out of every database as it went in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from mrm_sdk.storage import Database, Store
from tests.storage.events import FEATURES, event


def test_times_to_the_microsecond_in_the_order_of_event_ids(database: Database) -> None:
    store = Store(database, "acme")
    moment = datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    times = {"e2": moment, "e1": moment + timedelta(microseconds=1), "e3": moment - timedelta(days=900)}
    z = {"e1": [1.0, 2.0, 3.0], "e3": [3.0, 2.0, 1.0]}
    store.add([event(event_id=name, created_at=at, z=z.get(name)) for name, at in times.items()], features=FEATURES)
    feedback = store.feedback("ada", FEATURES)
    assert feedback.created_at == [times[name] for name in feedback.event_ids]
    assert {at.tzinfo for at in feedback.created_at} == {UTC}
    assert feedback.encoded().created_at == [times["e1"], times["e3"]]
