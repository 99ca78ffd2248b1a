"""What must hold in a database whose writers were killed, read with plain SQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import sqlalchemy as sa

from mrm_sdk import Bundle, Client
from mrm_sdk.schemas.feedback import Feedback
from mrm_sdk.storage.events import ComparisonEvent, RankingEvent, RatingEvent, event_of
from mrm_sdk.storage.tables import Base, ComparisonRow, ItemRow, RatingRow, RetentionRow, TombstoneRow
from tests.storage.feedback_from_names import RANKED, age, feedback
from tests.storage.killed_writers import Call

# Every row that points to one which is not there, or lacks one that is written with it.
ORPHANS = {
    "comparisons": """
        SELECT c.event_id FROM mrm_comparisons c
        LEFT JOIN mrm_users u ON u.tenant = c.tenant AND u.user_id = c.user_id
        LEFT JOIN mrm_items i ON i.tenant = c.tenant AND i.item_key = c.chosen
        LEFT JOIN mrm_items j ON j.tenant = c.tenant AND j.item_key = c.rejected
        LEFT JOIN mrm_item_features a ON a.tenant = c.tenant AND a.item_key = c.chosen
        LEFT JOIN mrm_item_features b ON b.tenant = c.tenant AND b.item_key = c.rejected
        LEFT JOIN mrm_comparison_features f ON f.tenant = c.tenant AND f.event_id = c.event_id
        WHERE u.user_id IS NULL OR i.item_key IS NULL OR j.item_key IS NULL
           OR a.item_key IS NULL OR b.item_key IS NULL OR f.event_id IS NULL""",
    "ratings": """
        SELECT r.event_id FROM mrm_ratings r
        LEFT JOIN mrm_users u ON u.tenant = r.tenant AND u.user_id = r.user_id
        LEFT JOIN mrm_items i ON i.tenant = r.tenant AND i.item_key = r.item_key
        LEFT JOIN mrm_item_features a ON a.tenant = r.tenant AND a.item_key = r.item_key
        WHERE u.user_id IS NULL OR i.item_key IS NULL OR a.item_key IS NULL""",
    "features": """
        SELECT f.event_id FROM mrm_comparison_features f
        LEFT JOIN mrm_comparisons c ON c.tenant = f.tenant AND c.event_id = f.event_id WHERE c.event_id IS NULL""",
    "items": """
        SELECT i.response FROM mrm_items i
        WHERE NOT EXISTS (SELECT 1 FROM mrm_comparisons c WHERE c.tenant = i.tenant AND c.chosen = i.item_key)
          AND NOT EXISTS (SELECT 1 FROM mrm_comparisons c WHERE c.tenant = i.tenant AND c.rejected = i.item_key)
          AND NOT EXISTS (SELECT 1 FROM mrm_ratings r WHERE r.tenant = i.tenant AND r.item_key = i.item_key)""",
    "weights": """
        SELECT w.user_id FROM mrm_user_weights w
        LEFT JOIN mrm_users u ON u.tenant = w.tenant AND u.user_id = w.user_id WHERE u.user_id IS NULL""",
}


@dataclass
class Place:
    """A database, what its writers began to do there, and what had returned when they were killed."""

    url: str
    begun: list[Call] = field(default_factory=list)
    returned: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._engine = sa.create_engine(self.url, poolclass=sa.NullPool)

    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """One state of it, also where the server is still busy with the last statement of a killed process."""
        with self._engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection.execution_options(isolation_level="REPEATABLE READ")
            else:
                connection.exec_driver_sql("BEGIN")
            yield connection

    def check(self) -> None:
        """What can be seen quickly: nothing acknowledged is lost, and nothing is there by half."""
        with self.snapshot() as connection:
            if connection.dialect.name == "sqlite":
                assert connection.exec_driver_sql("PRAGMA integrity_check").all() == [("ok",)]
                assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
            tables = {name for name in sa.inspect(connection).get_table_names() if name.startswith("mrm_")}
            if not tables:
                assert not self.returned
                return
            assert tables == {*Base.metadata.tables, "mrm_alembic_version"}
            for what, query in ORPHANS.items():
                assert connection.exec_driver_sql(query).all() == [], what
            self._check_events(connection)

    def _check_events(self, connection: sa.Connection) -> None:
        stored: set[str] = set()
        for table in (ComparisonRow, RatingRow):
            stored |= set(connection.scalars(sa.select(table.event_id)))
        acknowledged = {name for call in self.returned for name in call.names}
        units = [unit for call in self.begun for unit in call.units if unit]
        gone, leaving = self._gone(connection, {name for unit in units for name in unit})
        parts = {unit: {part for name in unit for part in parts_of(name)} for unit in units}
        for unit, ids in parts.items():
            if unit[0] in gone:
                assert not ids & stored, f"{unit} was deleted, and some of it is there"
            else:
                assert ids <= stored or not ids & stored, f"{unit} is there by half"
                kept = unit[0] in stored or unit[0] in leaving
                assert kept or not acknowledged & set(unit), f"{unit} was acknowledged and is lost"
        assert stored <= set().union(*parts.values()), "a row is there that no process wrote"

    def _gone(self, connection: sa.Connection, names: Iterable[str]) -> tuple[set[str], set[str]]:
        """Events that a deletion took, and those that it was interrupted in taking.

        Forgetting is one transaction. Pruning draws a line first, and then takes what lies behind it in steps.
        """
        forgotten = set(connection.scalars(sa.select(TombstoneRow.user_id)))
        line = connection.scalar(sa.select(RetentionRow.pruned_before))
        assert {call.user for call in self.returned if call.kind == "forget"} <= forgotten
        assert forgotten <= {call.user for call in self.begun if call.kind == "forget"}
        done, begun = ([_line(call) for call in part if call.kind == "prune"] for part in (self.returned, self.begun))
        assert line is None or line in begun
        assert not done or (line is not None and line >= max(done))
        for user in forgotten:
            for table in Base.metadata.tables.values():
                if "user_id" in table.c and table.name != "mrm_tombstones":
                    assert not connection.execute(sa.select(table).where(table.c.user_id == user)).all(), table.name
        given = {name: feedback(name) for name in names}
        pruned = {name for name, each in given.items() if done and each.created_at < max(done)}
        leaving = {name for name, each in given.items() if line is not None and each.created_at < line}
        return pruned | {name for name, each in given.items() if each.user_id in forgotten}, leaving

    def check_contents(self, bundle: Bundle) -> int:
        """All of it: every event as it was handed in, and weights as they come out without any kill.

        Returns:
            How many users' weights were stored and up to date.
        """
        with self.snapshot() as connection:
            if connection.dialect.name == "postgresql":
                check_indexes(connection)
            compared = {row.event_id: row for row in connection.execute(sa.select(*ComparisonRow.__table__.c))}
            rated = {row.event_id: row for row in connection.execute(sa.select(*RatingRow.__table__.c))}
            items = {row.item_key: row for row in connection.execute(sa.select(*ItemRow.__table__.c))}
            current = connection.exec_driver_sql(
                "SELECT w.user_id, w.weights, w.covariance, w.comparisons FROM mrm_user_weights w "
                "JOIN mrm_users u ON u.tenant = w.tenant AND u.user_id = w.user_id AND u.feedback = w.feedback"
            ).all()
            users = set(connection.scalars(sa.text("SELECT user_id FROM mrm_users")))
        given: list[Feedback] = [feedback(name) for name in {name.split("#")[0] for name in (*compared, *rated)}]
        for each in given:
            event = event_of(each)
            parts = event.parts if isinstance(event, RankingEvent) else (event,)
            for part in parts:
                if isinstance(part, ComparisonEvent):
                    row, sides = compared[part.source.event_id], (part.chosen, part.rejected)
                    assert (row.chosen, row.rejected, row.tie) == (*(s.key for s in sides), part.source.tie)
                else:
                    assert isinstance(part, RatingEvent)
                    row, sides = rated[part.source.event_id], (part.item,)
                    assert (row.item_key, row.value) == (part.item.key, part.source.value)
                source = part.source
                assert (row.user_id, row.strength) == (source.user_id, source.strength)
                assert row.created_at == source.created_at
                assert row.content == part.content
                for item in sides:
                    assert item.embedding is not None
                    found = items[item.key]
                    assert (found.prompt, found.response) == (item.prompt, item.text)
                    assert np.frombuffer(found.embedding, np.float32).tolist() == item.embedding.tolist()
        with Client("sqlite://", bundle=bundle) as alone, Client(self.url, bundle=bundle) as client:
            assert alone.record_many(reversed(given)).accepted == len(given)
            for user_id, weights, covariance, comparisons in current:
                user = alone.personalize(user_id)
                assert comparisons == user.comparisons
                assert weights == user.weights.tobytes(), user_id
                assert user.covariance is not None
                assert covariance == user.covariance.tobytes(), user_id
            for user_id in sorted(users):
                here, there = (c.personalize(user_id) for c in (client, alone))
                assert here.weights.tolist() == there.weights.tolist()
                assert here.comparisons == there.comparisons
        return len(current)


def check_indexes(connection: sa.Connection) -> None:
    """PostgreSQL's counterpart of ``PRAGMA integrity_check``: each index leads to all rows of its table, in order.

    With the extension amcheck, which not every installation has, the server looks for itself.
    """
    looks = "SELECT 1 FROM pg_available_extensions WHERE name = 'amcheck'"
    if connection.exec_driver_sql(looks).first():
        connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS amcheck WITH SCHEMA pg_catalog")
        query = "SELECT bt_index_check(indexrelid, true) FROM pg_index WHERE indrelid = '{}'::regclass"
        for table in Base.metadata.tables:
            connection.exec_driver_sql(query.format(table))
    inspector = sa.inspect(connection)
    for name, table in Base.metadata.tables.items():
        keys = [list(table.primary_key.columns.keys())]
        keys += [[str(column) for column in index["column_names"]] for index in inspector.get_indexes(name)]
        for columns in keys:
            query = f"SELECT ctid, {', '.join(columns)} FROM {name} ORDER BY {', '.join([*columns, 'ctid'])}"
            rows = []
            for scan, others in (("Index", "seqscan"), ("Seq", "indexscan, indexonlyscan, bitmapscan")):
                connection.exec_driver_sql("RESET ALL")
                for other in others.split(", "):
                    connection.exec_driver_sql(f"SET LOCAL enable_{other} = off")
                plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {query}").scalars())
                assert f"{scan} " in plan, plan
                rows.append(connection.exec_driver_sql(query).all())
            assert rows[0] == rows[1], f"an index of {name} on {columns} is damaged"


def parts_of(name: str) -> list[str]:
    """The ids of the rows that an event makes."""
    if not name.startswith("ranking:"):
        return [name]
    return [name, *(f"{name}#{number}" for number in range(1, RANKED * (RANKED - 1) // 2))]


def _line(call: Call) -> datetime:
    return age(call.writer, call.round) + timedelta(milliseconds=500)
