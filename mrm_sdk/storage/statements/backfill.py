"""SELECT: what a bundle lacks of stored feedback, for the rebuild that computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from mrm_sdk.schemas.items import Item
from mrm_sdk.storage.database import Database
from mrm_sdk.storage.statements.select import vector
from mrm_sdk.storage.tables import (
    ComparisonFeaturesRow,
    ComparisonRow,
    ItemFeaturesRow,
    ItemRow,
    RatingRow,
    UserRow,
)

_I, _B, _C, _Z, _R, _U = ItemRow, ItemFeaturesRow, ComparisonRow, ComparisonFeaturesRow, RatingRow, UserRow
_TENANT: Any = sa.bindparam("tenant")
_USER: Any = sa.bindparam("user_id")
_FEATURES: Any = sa.bindparam("of")
_AFTER: Any = sa.bindparam("after")
_LIMIT: Any = sa.bindparam("limit")
_ITEM: Any = sa.bindparam("item_key")


def _has_rewards(item_key: Any) -> Any:
    return sa.exists().where(_B.tenant == _TENANT, _B.item_key == item_key, _B.features_hash == _FEATURES)


_HAS_Z = sa.exists().where(_Z.tenant == _TENANT, _Z.event_id == _C.event_id, _Z.features_hash == _FEATURES)
_ITEMS = (
    sa.select(_I.item_key, _I.prompt, _I.response, _I.embedding)
    .where(_I.tenant == _TENANT, ~_has_rewards(_I.item_key), _I.item_key > _AFTER)
    .order_by(_I.item_key)
    .limit(_LIMIT)
)
_COMPARISONS = (
    sa.select(_C.event_id, _C.chosen, _C.rejected)
    .where(_C.tenant == _TENANT, ~_HAS_Z, _C.event_id > _AFTER)
    .order_by(_C.event_id)
    .limit(_LIMIT)
)
_USERS = sa.select(_U.user_id).where(_U.tenant == _TENANT, _U.user_id > _AFTER).order_by(_U.user_id).limit(_LIMIT)
_COUNTS = [
    sa.select(sa.func.count()).select_from(_I).where(_I.tenant == _TENANT, ~_has_rewards(_I.item_key)),
    sa.select(sa.func.count()).select_from(_C).where(_C.tenant == _TENANT, ~_HAS_Z),
    sa.select(sa.func.count()).select_from(_U).where(_U.tenant == _TENANT),
]
_TEXTLESS = (
    sa.select(_I.item_key)
    .where(_I.tenant == _TENANT, _I.response.is_(None), _I.embedding.is_(None), ~_has_rewards(_I.item_key))
    .limit(1)
)
_LACKING = [
    # z itself is not needed: with both base rewards it is one subtraction.
    sa.select(_C.event_id)
    .where(_C.tenant == _TENANT, _C.user_id == _USER, ~(_has_rewards(_C.chosen) & _has_rewards(_C.rejected)))
    .limit(1),
    sa.select(_R.event_id).where(_R.tenant == _TENANT, _R.user_id == _USER, ~_has_rewards(_R.item_key)).limit(1),
]
_JUDGING = [
    sa.select(_C.event_id, _C.user_id).where(_C.tenant == _TENANT, (_C.chosen == _ITEM) | (_C.rejected == _ITEM)),
    sa.select(_R.event_id, _R.user_id).where(_R.tenant == _TENANT, _R.item_key == _ITEM),
]


class Backfill:
    """Reads what a bundle lacks of one tenant's stored feedback, a chunk at a time.

    Each chunk starts after the last key of the one before: an interrupted rebuild skips what it did before, and rows
    whose features cannot be computed do not come again.

    Args:
        database: where the tables are.
        tenant: whose feedback.
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self._database, self._tenant = database, tenant

    def items(self, features_hash: str, *, after: bytes, limit: int) -> dict[bytes, Item]:
        """The next items without base rewards under ``features_hash``, by key and in its order."""
        rows = self._rows(_ITEMS, features_hash, after=after, limit=limit)
        return {row.item_key: Item(row.prompt, row.response, vector(row.embedding)) for row in rows}

    def comparisons(self, features_hash: str, *, after: str, limit: int) -> list[tuple[str, bytes, bytes]]:
        """The next comparisons without ``z`` under ``features_hash``: event id, keys of chosen and rejected item."""
        return [tuple(row) for row in self._rows(_COMPARISONS, features_hash, after=after, limit=limit)]

    def events_of(self, item_key: bytes) -> list[tuple[str, str]]:
        """Which comparisons and ratings judge an item: event id and user id."""
        parameters = {"tenant": self._tenant, "item_key": item_key}
        return self._database.read(
            lambda connection: [
                (event_id, user_id)
                for statement in _JUDGING
                for event_id, user_id in connection.execute(statement, parameters)
            ]
        )

    def users(self, *, after: str, limit: int) -> list[str]:
        """The next users who have given feedback, in the database's own order of texts."""
        parameters = {"tenant": self._tenant, "after": after, "limit": limit}
        return self._database.read(lambda connection: list(connection.scalars(_USERS, parameters)))

    def counts(self, features_hash: str) -> tuple[int, int, int]:
        """How many items and how many comparisons lack features, and how many users there are."""
        parameters = {"tenant": self._tenant, "of": features_hash}
        items, comparisons, users = self._database.read(
            lambda connection: [connection.scalar(statement, parameters) or 0 for statement in _COUNTS]
        )
        return items, comparisons, users

    def is_textless(self, features_hash: str) -> bool:
        """Whether some item lacks features that can never be computed, because its text was not kept."""
        return bool(self._rows(_TEXTLESS, features_hash))

    def lacks_features(self, user_id: str, features_hash: str) -> bool:
        """Whether some item that the user has judged lacks base rewards."""
        return any(self._rows(statement, features_hash, user_id=user_id) for statement in _LACKING)

    def _rows(self, statement: sa.Executable, features_hash: str, **parameters: Any) -> Sequence[sa.Row[Any]]:
        values = {"tenant": self._tenant, "of": features_hash, **parameters}
        return self._database.read(lambda connection: connection.execute(statement, values).all())
