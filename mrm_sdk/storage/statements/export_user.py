"""Everything known of a user as one object that JSON can hold; imports the tables and SQLAlchemy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import sqlalchemy as sa

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


def export(connection: sa.Connection, tenant: str, user_id: str) -> dict[str, Any]:
    """Reads a user's rows as they stood at one moment; :meth:`mrm_sdk.Client.export_user` states the shape.

    Args:
        connection: in a transaction in which all statements see the same moment.
        tenant: whose.
        user_id: of whom.
    """
    mine = {"tenant": tenant, "user_id": user_id}

    def rows(table: type, **conditions: Any) -> Sequence[sa.RowMapping]:
        query = sa.select(*sa.inspect(table).columns).filter_by(**conditions)
        return connection.execute(query).mappings().all()

    def named(table: Any, key: Any, by: Any) -> Sequence[sa.RowMapping]:
        """Rows of ``table`` whose ``key`` is in the column ``by`` of this user's rows."""
        names = sa.select(by).filter_by(**mine)
        query = sa.select(*sa.inspect(table).columns).where(table.tenant == tenant, key.in_(names))
        return connection.execute(query).mappings().all()

    c, r, f = ComparisonRow, RatingRow, ComparisonFeaturesRow
    # Sorted here: databases order text each in a way of their own.
    comparisons = sorted(rows(c, **mine), key=lambda row: str(row["event_id"]))
    ratings = sorted(rows(r, **mine), key=lambda row: str(row["event_id"]))
    z = named(f, f.event_id, c.event_id)
    items: dict[bytes, sa.RowMapping] = {}
    rewards: dict[tuple[bytes, str], sa.RowMapping] = {}
    i, b = ItemRow, ItemFeaturesRow
    for judged in (c.chosen, c.rejected, r.item_key):
        items |= {row["item_key"]: row for row in named(i, i.item_key, judged)}
        rewards |= {(row["item_key"], row["features"]): row for row in named(b, b.item_key, judged)}
    users, weights, outbox, tombstones = (rows(t, **mine) for t in (UserRow, UserWeightsRow, OutboxRow, TombstoneRow))

    differences: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in z:
        differences[row["event_id"]][row["features"]] = _numbers(row["z"], np.float32)
    of_item: dict[bytes, dict[str, Any]] = defaultdict(dict)
    for row in rewards.values():
        of_item[row["item_key"]][row["features"]] = _numbers(row["base_rewards"], np.float32)

    def side(key: bytes) -> dict[str, Any]:
        item = items[key]
        return {
            "item": key.hex(),
            "text": item["response"],
            "embedding": _numbers(item["embedding"], np.float32),
            "base_rewards": of_item.get(key, {}),
        }

    read = {
        UserRow: users,
        i: items,
        b: rewards,
        c: comparisons,
        f: z,
        r: ratings,
        UserWeightsRow: weights,
        OutboxRow: outbox,
        TombstoneRow: tombstones,
    }
    return {
        "format": FORMAT,
        "exported_at": datetime.now(UTC).isoformat(),
        "tenant": tenant,
        "user_id": user_id,
        "comparisons": [
            {
                "event_id": row["event_id"],
                "created_at": row["created_at"].isoformat(),
                "prompt": items[row["chosen"]]["prompt"],
                "chosen": side(row["chosen"]),
                "rejected": side(row["rejected"]),
                "tie": row["tie"],
                "strength": row["strength"],
                "z": differences.get(row["event_id"], {}),
            }
            for row in comparisons
        ],
        "ratings": [
            {
                "event_id": row["event_id"],
                "created_at": row["created_at"].isoformat(),
                "prompt": items[row["item_key"]]["prompt"],
                "response": side(row["item_key"]),
                "value": row["value"],
                "strength": row["strength"],
            }
            for row in ratings
        ],
        "weights": {
            row["fingerprint"]: {
                "weights": _numbers(row["weights"], np.float64),
                "covariance": _square(_numbers(row["covariance"], np.float64)),
                "comparisons": row["comparisons"],
                "revision": row["revision"],
            }
            for row in weights
        },
        "outbox": [
            {"event_id": row["event_id"], "kind": row["kind"], "created_at": row["created_at"].isoformat()}
            for row in outbox
        ],
        "tombstones": [
            {"event_id": row["event_id"], "forgotten_at": row["forgotten_at"].isoformat()} for row in tombstones
        ],
        "counts": {table.__tablename__: len(found) for table, found in read.items()},
    }


def _numbers(data: bytes | None, dtype: Any) -> list[float] | None:
    return None if data is None else np.frombuffer(data, dtype).tolist()


def _square(numbers: list[float] | None) -> list[list[float]] | None:
    if numbers is None:
        return None
    size = round(len(numbers) ** 0.5)
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]
