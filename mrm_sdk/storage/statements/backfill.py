"""What a bundle lacks of a tenant's stored feedback, a part at a time; imports the tables and SQLAlchemy.

Parts go by key, each after the last one's end: a rebuild that was stopped finds what it did before done, and rows that
nothing can be computed for do not come again.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from mrm_sdk.schemas.items import Item
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


def _has_rewards(item_key: Any) -> Any:
    return sa.exists().where(_B.tenant == _TENANT, _B.item_key == item_key, _B.features == _FEATURES)


_HAS_Z = sa.exists().where(_Z.tenant == _TENANT, _Z.event_id == _C.event_id, _Z.features == _FEATURES)
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
    # Not asked of z: that is a subtraction, where the base rewards are there.
    sa.select(_C.event_id)
    .where(_C.tenant == _TENANT, _C.user_id == _USER, ~(_has_rewards(_C.chosen) & _has_rewards(_C.rejected)))
    .limit(1),
    sa.select(_R.event_id).where(_R.tenant == _TENANT, _R.user_id == _USER, ~_has_rewards(_R.item_key)).limit(1),
]


def items(connection: sa.Connection, tenant: str, features: str, after: bytes, limit: int) -> dict[bytes, Item]:
    """The next items without base rewards, by key, in its order."""
    rows = connection.execute(_ITEMS, {"tenant": tenant, "of": features, "after": after, "limit": limit})
    return {row.item_key: Item(row.prompt, row.response, vector(row.embedding)) for row in rows}


def comparisons(
    connection: sa.Connection, tenant: str, features: str, after: str, limit: int
) -> list[tuple[str, bytes, bytes]]:
    """The next comparisons without ``z``: event id, chosen and rejected item."""
    rows = connection.execute(_COMPARISONS, {"tenant": tenant, "of": features, "after": after, "limit": limit})
    return [(event_id, chosen, rejected) for event_id, chosen, rejected in rows]


def users(connection: sa.Connection, tenant: str, after: str, limit: int) -> list[str]:
    """The next users who have given feedback."""
    return list(connection.scalars(_USERS, {"tenant": tenant, "after": after, "limit": limit}))


def counts(connection: sa.Connection, tenant: str, features: str) -> tuple[int, int, int]:
    """How many items and comparisons lack features, and how many users there are."""
    missing, unencoded, everybody = (
        connection.scalar(query, {"tenant": tenant, "of": features}) or 0 for query in _COUNTS
    )
    return missing, unencoded, everybody


def is_textless(connection: sa.Connection, tenant: str, features: str) -> bool:
    """Whether there is an item without features that nothing is left of to compute them from."""
    return connection.execute(_TEXTLESS, {"tenant": tenant, "of": features}).first() is not None


def lacks_features(connection: sa.Connection, tenant: str, user_id: str, features: str) -> bool:
    """Whether something has to be encoded before a user can be adapted."""
    values = {"tenant": tenant, "user_id": user_id, "of": features}
    return any(connection.execute(query, values).first() is not None for query in _LACKING)
