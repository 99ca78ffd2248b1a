"""SELECT: all data of a user, as one object that JSON can hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import sqlalchemy as sa

from mrm_sdk.storage.events import counted
from mrm_sdk.storage.tables import (
    ComparisonFeaturesRow,
    ComparisonRow,
    ItemFeaturesRow,
    ItemRow,
    OutboxRow,
    RatingRow,
    TombstoneRow,
    UserRow,
    UserWeightsRow,
)

FORMAT = 1
_Rows = Sequence[sa.RowMapping]
_Vectors = Mapping[Any, Mapping[str, Any]]


def read_user(connection: sa.Connection, tenant: str, user_id: str) -> dict[str, Any]:
    """Reads a user's rows as of one moment; :meth:`mrm_sdk.Client.export_user` states the shape.

    Args:
        connection: in a transaction in which all statements see the same moment.
        tenant: of all rows.
        user_id: of the user.
    """
    user = _UserRows.read(connection, tenant, user_id)
    z = _vectors(user.comparison_features, "event_id", "z")
    base_rewards = _vectors(user.item_features, "item_key", "base_rewards")
    sides = {row["item_key"]: _side(row, base_rewards) for row in user.items}
    prompts = {row["item_key"]: row["prompt"] for row in user.items}
    return {
        "format": FORMAT,
        "exported_at": datetime.now(UTC).isoformat(),
        "tenant": tenant,
        "user_id": user_id,
        "comparisons": [_comparison(row, prompts, sides, z) for row in user.comparisons],
        "ratings": [_rating(row, prompts, sides) for row in user.ratings],
        "weights": {row["fingerprint"]: _weights(row) for row in user.weights},
        "outbox": [
            {"event_id": row["event_id"], "kind": row["kind"], "created_at": row["created_at"].isoformat()}
            for row in user.outbox
        ],
        "tombstones": [
            {"event_id": row["event_id"], "forgotten_at": row["forgotten_at"].isoformat()} for row in user.tombstones
        ],
        "counts": user.counts(),
    }


@dataclass(frozen=True)
class _UserRows:
    """A user's rows in every table."""

    users: _Rows
    items: _Rows
    item_features: _Rows
    comparisons: _Rows
    comparison_features: _Rows
    ratings: _Rows
    weights: _Rows
    outbox: _Rows
    tombstones: _Rows

    @classmethod
    def read(cls, connection: sa.Connection, tenant: str, user_id: str) -> _UserRows:
        own = {"tenant": tenant, "user_id": user_id}

        def rows(table: Any) -> _Rows:
            query = sa.select(*sa.inspect(table).columns).filter_by(**own)
            return connection.execute(query).mappings().all()

        def events(table: Any) -> _Rows:
            # Sorted here: each database has its own order of texts.
            return sorted(rows(table), key=lambda row: str(row["event_id"]))

        def referred(table: Any, key: Any, *references: Any) -> _Rows:
            """Rows of ``table`` whose ``key`` is in one of the columns ``references`` of the user's rows, each once."""
            keys = sa.union(*(sa.select(reference).filter_by(**own) for reference in references))
            query = sa.select(*sa.inspect(table).columns).where(table.tenant == tenant, key.in_(keys))
            return connection.execute(query).mappings().all()

        judged = ComparisonRow.chosen, ComparisonRow.rejected, RatingRow.item_key
        return cls(
            users=rows(UserRow),
            items=referred(ItemRow, ItemRow.item_key, *judged),
            item_features=referred(ItemFeaturesRow, ItemFeaturesRow.item_key, *judged),
            comparisons=events(ComparisonRow),
            comparison_features=referred(ComparisonFeaturesRow, ComparisonFeaturesRow.event_id, ComparisonRow.event_id),
            ratings=events(RatingRow),
            weights=rows(UserWeightsRow),
            outbox=rows(OutboxRow),
            tombstones=rows(TombstoneRow),
        )

    def counts(self) -> dict[str, int]:
        """Rows by table."""
        tables = {
            UserRow: self.users,
            ItemRow: self.items,
            ItemFeaturesRow: self.item_features,
            ComparisonRow: self.comparisons,
            ComparisonFeaturesRow: self.comparison_features,
            RatingRow: self.ratings,
            UserWeightsRow: self.weights,
            OutboxRow: self.outbox,
            TombstoneRow: self.tombstones,
        }
        return {table.__tablename__: len(rows) for table, rows in tables.items()}


def _vectors(rows: _Rows, key: str, column: str) -> _Vectors:
    """Float32 vectors of rows, by key and features hash."""
    vectors: dict[Any, dict[str, Any]] = defaultdict(dict)
    for row in rows:
        vectors[row[key]][row["features"]] = _numbers(row[column], np.float32)
    return vectors


def _side(item: sa.RowMapping, base_rewards: _Vectors) -> dict[str, Any]:
    return {
        "item": item["item_key"].hex(),
        "text": item["response"],
        "embedding": _numbers(item["embedding"], np.float32),
        "base_rewards": base_rewards.get(item["item_key"], {}),
    }


def _comparison(
    row: sa.RowMapping, prompts: Mapping[bytes, str | None], sides: Mapping[bytes, dict[str, Any]], z: _Vectors
) -> dict[str, Any]:
    return {
        "event_id": row["event_id"],
        "created_at": row["created_at"].isoformat(),
        "prompt": prompts[row["chosen"]],
        "chosen": sides[row["chosen"]],
        "rejected": sides[row["rejected"]],
        "tie": row["tie"],
        "strength": row["strength"],
        "z": z.get(row["event_id"], {}),
    }


def _rating(
    row: sa.RowMapping, prompts: Mapping[bytes, str | None], sides: Mapping[bytes, dict[str, Any]]
) -> dict[str, Any]:
    return {
        "event_id": row["event_id"],
        "created_at": row["created_at"].isoformat(),
        "prompt": prompts[row["item_key"]],
        "response": sides[row["item_key"]],
        "value": row["value"],
        "strength": row["strength"],
    }


def _weights(row: sa.RowMapping) -> dict[str, Any]:
    moved = counted(row["compared"], row["rating_pairs"], row["ratings_alone"])
    return {
        "weights": _numbers(row["weights"], np.float64),
        "covariance": _square(_numbers(row["covariance"], np.float64)),
        "comparisons": row["comparisons"],
        "counted": None if moved is None else moved.model_dump(),
        "revision": row["revision"],
    }


def _numbers(data: bytes | None, dtype: Any) -> list[float] | None:
    return None if data is None else np.frombuffer(data, dtype).tolist()


def _square(numbers: list[float] | None) -> list[list[float]] | None:
    if numbers is None:
        return None
    size = round(len(numbers) ** 0.5)
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]
