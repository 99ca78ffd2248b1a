"""Databases that earlier versions stored: up to this one and down again, with their rows, on both databases.

What is under ``revisions`` was written by the code of each revision's own time.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from mrm_sdk.bundle import Bundle
from mrm_sdk.client import Client
from mrm_sdk.errors import ConflictError, EventExpiredError, UserForgottenError
from mrm_sdk.schemas.feedback import Comparison, Feedback, Ranking, Rating, Thumb
from mrm_sdk.schemas.items import Item
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database, check, current, upgrade
from mrm_sdk.storage.migrate import VERSION_TABLE, _migrations
from tests.small_encoders import CountingEncoder
from tests.storage.revisions.make import EXPIRED, FOLDER, FORGOTTEN, KEPT, TENANTS, Told

REVISIONS = sorted(script.revision for script in _migrations()[1].walk_revisions())
HEAD = REVISIONS[-1]
Row = dict[str, Any]


@pytest.fixture(params=REVISIONS)
def revision(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["sqlite", "postgres"])
def stored(request: pytest.FixtureRequest, revision: str, tmp_path: Path) -> Iterator[Database]:
    """A copy of the database that a revision's own code wrote."""
    if request.param == "sqlite":
        shutil.copyfile(FOLDER / f"{revision}.sqlite", tmp_path / "mrm.db")
        database = Database(f"sqlite:///{tmp_path / 'mrm.db'}", Settings())
    else:
        database = Database(request.getfixturevalue("postgres_url"), Settings())
        with database.transaction(write=True) as connection:
            dump = (FOLDER / f"{revision}.sql").read_text(encoding="utf-8")
            connection.execution_options(no_parameters=True).exec_driver_sql(dump)
    yield database
    database.close()


def rows(database: Database) -> dict[str, list[Row]]:
    """Every row of every table, but for the revision's own."""
    with database.transaction() as connection:
        names = set(sa.inspect(connection).get_table_names()) - {VERSION_TABLE}
        tables = {name: connection.exec_driver_sql(f"SELECT * FROM {name}").mappings().all() for name in names}
    return {name: [dict(row) for row in each] for name, each in tables.items()}


def shared(given: dict[str, list[Row]], other: dict[str, list[Row]]) -> dict[str, list[str]]:
    """Rows with those columns that both have, in an order of their own."""
    result = {}
    for name, each in given.items():
        columns = set.intersection(*(set(row) for row in [*each, *other.get(name, [])])) if each else set()
        result[name] = sorted(repr({column: row[column] for column in sorted(columns)}) for row in each)
    return result


def shape(database: Database) -> dict[str, list[str]]:
    """Columns, keys and indexes of every table, by their names."""
    with database.transaction() as connection:
        inspector = sa.inspect(connection)
        return {
            name: sorted(
                repr((kind, thing["name"], thing.get("nullable"), thing.get("column_names")))
                for kind in ("columns", "indexes", "foreign_keys")
                for thing in getattr(inspector, f"get_{kind}")(name)
            )
            for name in inspector.get_table_names()
        }


def move(database: Database, direction: Callable[[Config, str], None], revision: str) -> None:
    config, _ = _migrations()
    with database.transaction(write=True) as connection:
        config.attributes["connection"] = connection
        direction(config, revision)


def known(revision: str, tenant: str, user: str | None = None) -> list[Told]:
    """What a tenant's users, or one of them, had told and was still there when it was stored."""
    mine = [told for told in KEPT if told.tenant == tenant and told.since <= revision]
    return [told for told in mine if user in (None, told.fields["user_id"])]


def as_told(feedback: Feedback) -> list[tuple[Any, ...]]:
    """Feedback as an export tells it."""
    if isinstance(feedback, Thumb):
        feedback = feedback.as_rating()
    if isinstance(feedback, Ranking):
        return [line for part in feedback.comparisons() for line in as_told(part)]
    sides = [feedback.response] if isinstance(feedback, Rating) else [feedback.chosen, feedback.rejected]
    items = [Item.of(feedback.prompt, side) for side in sides]
    judged = (feedback.value,) if isinstance(feedback, Rating) else (feedback.tie,)
    vectors = [None if item.embedding is None else item.embedding.tolist() for item in items]
    texts = [(item.key.hex(), item.text, vector) for item, vector in zip(items, vectors, strict=True)]
    return [
        (feedback.event_id, feedback.created_at.isoformat(), items[0].prompt, texts, *judged, feedback.strength),
    ]


def as_exported(exported: dict[str, Any]) -> list[tuple[Any, ...]]:
    def line(row: Row, sides: tuple[str, ...], judged: str) -> tuple[Any, ...]:
        texts = [tuple(row[side][name] for name in ("item", "text", "embedding")) for side in sides]
        return row["event_id"], row["created_at"], row["prompt"], texts, row[judged], row["strength"]

    compared = [line(row, ("chosen", "rejected"), "tie") for row in exported["comparisons"]]
    return compared + [line(row, ("response",), "value") for row in exported["ratings"]]


def test_every_revision_has_a_stored_database() -> None:
    for ending in ("sqlite", "sql"):
        assert sorted(path.stem for path in FOLDER.glob(f"*.{ending}")) == REVISIONS


def test_it_is_of_that_revision_and_has_rows_in_every_table(stored: Database, revision: str) -> None:
    assert current(stored) == revision
    assert [name for name, each in rows(stored).items() if not each] == []


def test_up_and_down_step_by_step(stored: Database, revision: str) -> None:
    before, shape_before = rows(stored), shape(stored)
    assert upgrade(stored) == (revision, HEAD)
    assert check(stored) == []
    after = rows(stored)
    assert shared({name: after[name] for name in before}, before) == shared(before, after)

    for below in reversed(REVISIONS[REVISIONS.index(revision) : -1]):
        move(stored, command.downgrade, "-1")
        assert current(stored) == below
    assert shape(stored) == shape_before
    assert shared(rows(stored), before) == shared(before, before)
    for below in [*reversed(REVISIONS[: REVISIONS.index(revision)]), None]:
        move(stored, command.downgrade, "-1")
        assert current(stored) == below
    assert set(shape(stored)) == {VERSION_TABLE}
    assert upgrade(stored) == (None, HEAD)
    assert check(stored) == []


def test_it_works_with_this_version(stored: Database, revision: str, embedded_bundle: Bundle) -> None:
    for tenant in TENANTS:
        with Client(stored.engine, bundle=embedded_bundle, encoder=CountingEncoder(), tenant=tenant) as client:
            users = {told.fields["user_id"] for told in known(revision, tenant)}
            for user in users:
                told = known(revision, tenant, user)
                exported = client.export_user(user)
                lines = [line for each in told for line in as_told(each.feedback())]
                assert sorted(as_exported(exported), key=repr) == sorted(lines, key=repr)
                assert client.personalize(user).comparisons == len(lines)
                assert client.summary(user).weights[client.personalize(user).fingerprint].counted is not None
                assert set(exported["weights"]) < set(client.export_user(user)["weights"])  # those of then are kept

            # Content is told apart by hashes, which must be those of then.
            feedback = [told.feedback() for told in known(revision, tenant)]
            again = client.record_many(feedback)
            assert (again.accepted, again.duplicates, again.rejected) == (0, len(feedback), ())
            for told in known(revision, tenant):
                with pytest.raises(ConflictError):
                    client.record(told.feedback(strength=77))

            new = [
                Comparison(user_id=user, event_id=f"new {user}", chosen="Grüße ✨", rejected="new") for user in users
            ]
            before = {user: client.score(user, ["Grüße ✨", "new"]) for user in users}
            assert client.record_many(new).accepted == len(users)
            for user in users:
                scores = client.score(user, ["Grüße ✨", "new"])
                assert scores[0] - scores[1] > before[user][0] - before[user][1]


def test_weights_of_versions_without_thresholds_are_adapted_again(
    stored: Database, revision: str, embedded_bundle: Bundle
) -> None:
    users = {told.fields["user_id"] for told in known(revision, "default")}
    with stored.transaction() as connection:
        counted = sa.inspect(connection).get_columns("mrm_user_weights")
    is_old = not any(column["name"] == "ratings_alone" for column in counted)
    with Client(stored.engine, bundle=embedded_bundle, encoder=CountingEncoder()) as client:
        for summary in (each for user in users for each in client.summary(user).weights.values()):
            assert (summary.counted is None) == is_old
            assert not (is_old and summary.current)
        for user in users:
            adapted = client.personalize(user)
            with stored.transaction(write=True) as connection:
                unknown = "UPDATE mrm_user_weights SET compared = NULL, rating_pairs = NULL, ratings_alone = NULL"
                connection.exec_driver_sql(unknown)
            again = client.personalize(user)
            assert again.revision == adapted.revision + 1
            assert again.counted == adapted.counted


def test_what_was_to_stay_out_stays_out(stored: Database, revision: str, embedded_bundle: Bundle) -> None:
    with Client(stored.engine, bundle=embedded_bundle, encoder=CountingEncoder()) as client:
        assert len(client.export_user("gone")["tombstones"]) == 1
        with pytest.raises(UserForgottenError):
            client.record(FORGOTTEN.feedback())
        if revision >= EXPIRED.since:
            with pytest.raises(EventExpiredError):
                client.record(EXPIRED.feedback())
        else:
            assert client.record(EXPIRED.feedback()).accepted == 1


def test_down_and_up_with_rows_of_this_version(stored: Database, revision: str, embedded_bundle: Bundle) -> None:
    """What this version wrote beside the old rows prevents neither a downgrade nor the next upgrade."""
    now = datetime.now(UTC)
    old = now - timedelta(days=90)
    feedback = [
        Comparison(user_id="ada", event_id="n1", chosen="a short one", rejected="new"),
        Rating(user_id="ada", event_id="n2", response="new and rated", value=1),
        Rating(user_id="eve", event_id="n3", response="rated by a new user", value=1),
        Ranking(user_id="ada", event_id="n4", responses=["new", "newer", "a short one"]),
        Comparison(user_id="old", event_id="n5", chosen="old", rejected="older", created_at=old),
    ]
    with Client(stored.engine, bundle=embedded_bundle, encoder=CountingEncoder()) as client:
        assert client.record_many(feedback).accepted == len(feedback)
        client.forget("unknown")
        for user in ("ada", "eve"):
            client.personalize(user)
    with Client(stored.engine, bundle=embedded_bundle, encoder=CountingEncoder(), tenant="new") as client:
        client.record(feedback[-1])
        assert client.prune(older_than=timedelta(days=60)).rows["mrm_comparisons"] == 1
    before = rows(stored)
    for below in reversed(REVISIONS[:-1]):
        move(stored, command.downgrade, "-1")
        assert current(stored) == below
        kept = rows(stored)
        for name in ("mrm_comparisons", "mrm_comparison_features", "mrm_tombstones"):
            assert shared({name: kept[name]}, before) == shared({name: before[name]}, kept)
    upgrade(stored)
    assert check(stored) == []
    with Client(stored.engine, bundle=embedded_bundle, encoder=CountingEncoder()) as client:
        compared = [each for each in feedback if not isinstance(each, Rating)]
        again = client.record_many(compared)
        assert (again.accepted, again.duplicates) == (0, len(compared))
        ada = client.personalize("ada")
        assert ada.comparisons == len(client.export_user("ada")["comparisons"])
        assert np.isfinite(client.score("ada", ["a short one", "new"])).all()
        assert client.forget("ada").rows["mrm_comparisons"] == ada.comparisons
