"""No method of the store returns or touches another tenant's row: all of them are walked over."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from mrm_sdk.schemas.feedback import Comparison, Rating
from mrm_sdk.schemas.items import Item, Response
from mrm_sdk.schemas.results import Counted
from mrm_sdk.settings import Settings
from mrm_sdk.storage import ComparisonEvent, Database, Store, StoredWeights, upgrade
from mrm_sdk.storage.events import RatingEvent, event_of
from mrm_sdk.storage.statements.backfill import Backfill
from mrm_sdk.storage.tables import Base, OutboxRow

NOW = datetime.now(UTC).replace(microsecond=0)
OLD, OLDER, OLDEST = NOW - timedelta(days=30), NOW - timedelta(days=60), NOW - timedelta(days=90)
FEATURES, LATER_FEATURES, FINGERPRINT = "f" * 64, "e" * 64, "b" * 64
SHARED = Response(text="both judged it", embedding=[1.0])
START = {"acme": 1_000, "globex": 40}  # feedback counters begin at random: here, where a test wants them
CHANGING = {"exported_at", "forgotten_at", "first_used_at"}


def own(name: str, value: float) -> tuple[ComparisonEvent, RatingEvent, np.ndarray[Any, Any]]:
    """A comparison and a rating of one tenant: the ids are those of the other, the content is not."""
    vector = np.full(3, value, np.float32)
    item, common = Item.of(name, Response(text=f"{name}'s", embedding=[value])), Item.of(None, SHARED)
    user = {"user_id": "ada", "strength": value, "created_at": OLD}
    comparison = Comparison(event_id="e1", prompt=name, chosen="x", rejected=SHARED, **user)
    rating = Rating(event_id="r1", prompt=name, response=f"{name}'s", value=value, **user)
    return ComparisonEvent(comparison, item, common), RatingEvent(rating, item), vector


OWN = {"acme": own("acme", 77.0), "globex": own("globex", 2.0)}
KEYS = sorted({item.key for event, *_ in OWN.values() for item in event.items})


def fill(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives a tenant a row in every table."""
    monkeypatch.setattr("mrm_sdk.storage.statements.insert.secrets.randbits", lambda _: START[store.tenant])
    event, rating, vector = OWN[store.tenant]
    store.add([event, rating], features_hash=FEATURES, base_rewards={item.key: vector for item in event.items})
    store.save_weights("ada", FINGERPRINT, weights(START[store.tenant] + 1, 1, float(vector[0])))
    store.remember_bundle(fingerprint=FINGERPRINT, features_hash=FEATURES, name=store.tenant)
    with store.database.transaction(write=True) as connection:
        row = {"event_id": "e1", "user_id": "ada", "kind": store.tenant, "created_at": OLD}
        connection.execute(sa.insert(OutboxRow).values(tenant=store.tenant, **row))
    # The same texts, judged by acme's ada, some time ago, and by another user at globex.
    user, moment = ("ada", OLD - timedelta(days=1)) if store.tenant == "acme" else ("bob", OLD)
    store.add([event_of(Comparison(event_id="e0", user_id=user, chosen="x", rejected="y", created_at=moment))])
    mute = Store(store.database, store.tenant, store_text=False)
    mute.add(
        [event_of(Comparison(event_id="e4", user_id=user, chosen="unsaid", rejected="x", created_at=moment))],
        features_hash=FEATURES,
    )
    if store.tenant == "acme":  # what keeps events out
        store.forget("gone")
        store.prune(OLDER)


def weights(feedback: int, revision: int, value: float = 0.5) -> StoredWeights:
    return StoredWeights(
        np.full(3, value),
        np.eye(3) * value,
        1,
        feedback,
        revision,
        Counted(comparisons=1, rating_pairs=0, ratings_alone=0),
    )


def add(store: Store) -> Any:
    """An id that acme has given away, a user that acme has forgotten, and a time that acme has pruned."""
    fresh = np.ones(3, np.float32)
    events = [
        ComparisonEvent(
            Comparison(event_id=event_id, user_id=user, chosen="x", rejected="y", created_at=moment), *sides
        )
        for event_id, user, moment in (("e1", "ada", OLD), ("e2", "gone", OLD), ("e3", "ada", OLDEST))
        for sides in [(Item.of(None, "x"), Item.of(None, "y"))]
    ]
    return store.add(events, features_hash=FEATURES, base_rewards=dict.fromkeys(KEYS, fresh))


def add_features(store: Store) -> Any:
    vector = np.ones(3, np.float32)
    return store.add_features(LATER_FEATURES, {"e1": vector}, dict.fromkeys(KEYS, vector))


def save_weights(store: Store) -> Any:
    seen = [start + events for start in START.values() for events in (1, 2)]
    return [store.save_weights("ada", FINGERPRINT, weights(n, revision)) for n in seen for revision in (1, 2)]


def remember_bundle(store: Store) -> Any:
    return store.remember_bundle(fingerprint="c" * 64, features_hash=FEATURES, name="new")


# A method that is new must be called here, with the ids that both tenants use.
CASES: dict[str, Callable[[Store], Any]] = {
    "add": add,
    "add_features": add_features,
    "base_rewards": lambda store: store.base_rewards(FEATURES, KEYS),
    "export": lambda store: store.export("ada"),
    "feedback": lambda store: store.feedback("ada", FEATURES),
    "forget": lambda store: store.forget("ada"),
    "backfill.is_textless": lambda store: store.backfill.is_textless(LATER_FEATURES),
    "items": lambda store: store.items(KEYS),
    "backfill.lacks_features": lambda store: [store.backfill.lacks_features(user, FEATURES) for user in ("ada", "bob")],
    "prune": lambda store: [store.prune(OLD), store.prune(NOW)],  # acme alone has something older than the first
    "remember_bundle": remember_bundle,
    "save_weights": save_weights,
    "backfill.comparisons": lambda store: store.backfill.comparisons(LATER_FEATURES, after="", limit=9),
    "backfill.counts": lambda store: store.backfill.counts(LATER_FEATURES),
    "backfill.events_of": lambda store: [store.backfill.events_of(key) for key in KEYS],
    "backfill.items": lambda store: store.backfill.items(LATER_FEATURES, after=b"", limit=9),
    "backfill.users": lambda store: store.backfill.users(after="", limit=9),
    "summary": lambda store: [store.summary(user) for user in ("ada", "gone")],
    "weights": lambda store: store.weights("ada", FINGERPRINT),
    "weights_of": lambda store: store.weights_of(["ada", "bob", "gone"], FINGERPRINT),
}


def public_methods(kind: type, prefix: str = "") -> set[str]:
    members = inspect.getmembers(kind)
    return {f"{prefix}{name}" for name, value in members if not name.startswith("_") and callable(value)}


def plain(value: Any) -> Any:
    """A result in values that can be compared, without what no two calls have alike."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Exception):
        return repr(value)
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items() if key not in CHANGING}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


def dump(database: Database, tenant: str, *, whole: bool = True) -> dict[str, list[str]]:
    """Every row of a tenant; not ``whole``: without what no two databases have alike."""
    result = {}
    with database.transaction() as connection:
        for name, table in Base.metadata.tables.items():
            left_out = set() if whole else CHANGING | ({"event_id"} if name == "mrm_tombstones" else set())
            columns = [column for column in table.c if column.name not in left_out]
            rows = connection.execute(sa.select(*columns).where(table.c.tenant == tenant)).all()
            result[name] = sorted(map(repr, rows))
    return result


@pytest.fixture
def alone() -> Iterator[Database]:
    """A database in which there is no other tenant."""
    database = Database("sqlite://", Settings())
    upgrade(database)
    yield database
    database.close()


def test_every_method_has_a_case() -> None:
    assert public_methods(Store) | public_methods(Backfill, "backfill.") == set(CASES)


def test_a_method_without_a_case_is_seen() -> None:
    class Grown(Store):
        @classmethod
        def all_users(cls) -> None: ...

        @staticmethod
        def any_user() -> None: ...

        def one_user(self) -> None: ...

    assert public_methods(Grown) - set(CASES) == {"all_users", "any_user", "one_user"}


def test_every_key_begins_with_the_tenant() -> None:
    for table in Base.metadata.tables.values():
        assert next(iter(table.primary_key.columns)).name == "tenant"


def test_the_other_tenant_has_a_row_wherever_one_can_be(alone: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(Store(alone, "acme"), monkeypatch)
    empty = {name for name, rows in dump(alone, "acme").items() if not rows}
    assert empty == {"mrm_api_keys"}  # the server's, which the store does not touch


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.parametrize("has_rows", [False, True], ids=["owns nothing", "owns the same ids"])
def test_it_makes_no_difference_who_else_is_there(
    database: Database, alone: Database, monkeypatch: pytest.MonkeyPatch, name: str, has_rows: bool
) -> None:
    fill(Store(database, "acme"), monkeypatch)
    acmes = dump(database, "acme")
    statements: list[str] = []
    if has_rows:
        for each in (database, alone):
            fill(Store(each, "globex"), monkeypatch)
    before = dump(alone, "globex")
    monkeypatch.setattr("mrm_sdk.storage.statements.insert.secrets.randbits", lambda _: 5)

    def note(_: Any, __: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    sa.event.listen(database.engine, "before_cursor_execute", note)
    results = [plain(CASES[name](Store(each, "globex"))) for each in (database, alone)]
    sa.event.remove(database.engine, "before_cursor_execute", note)
    assert results[0] == results[1]
    assert dump(database, "acme") == acmes
    assert dump(database, "globex", whole=False) == dump(alone, "globex", whole=False)
    about = [statement for statement in statements if "mrm_" in statement]
    assert about
    assert [statement for statement in about if "tenant" not in statement] == []
    if has_rows:  # the case does reach rows of its own
        assert dump(alone, "globex") != before or plain(CASES[name](Store(alone, "initech"))) != results[1]
