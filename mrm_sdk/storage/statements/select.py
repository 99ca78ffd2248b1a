"""What adaptation and scoring read, in statements that are built once; imports the tables and SQLAlchemy.

Building a statement costs several times what running it does, so those of the hot paths stand here ready. Each wants
the tenant among its parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from mrm_sdk.storage.events import StoredRating, StoredWeights, UserFeedback
from mrm_sdk.storage.statements.bulk import among, listed
from mrm_sdk.storage.tables import (
    ComparisonFeaturesRow,
    ComparisonRow,
    ItemFeaturesRow,
    RatingRow,
    TombstoneRow,
    UserRow,
    UserWeightsRow,
)

_U, _C, _R, _W = UserRow, ComparisonRow, RatingRow, UserWeightsRow
_TENANT: Any = sa.bindparam("tenant")
_USER: Any = sa.bindparam("user_id")
_OF: Any = sa.bindparam("of")

_WEIGHTS = (
    sa.select(_U.feedback, _W.weights, _W.covariance, _W.comparisons, _W.feedback.label("seen"), _W.revision)
    .join_from(_U, _W, (_W.tenant == _U.tenant) & (_W.user_id == _U.user_id) & (_W.fingerprint == _OF), isouter=True)
    .where(_U.tenant == _TENANT, _U.user_id == _USER)
)
_COUNT = sa.select(_U.feedback).where(_U.tenant == _TENANT, _U.user_id == _USER)
_Z = ComparisonFeaturesRow
_COMPARISONS = (
    sa.select(_C.event_id, _C.chosen, _C.rejected, _C.strength, _C.tie, _Z.z)
    .join_from(_C, _Z, (_Z.tenant == _C.tenant) & (_Z.event_id == _C.event_id) & (_Z.features == _OF), isouter=True)
    .where(_C.tenant == _TENANT, _C.user_id == _USER)
)
# Reading a time takes as long as reading the rest of a row; only a half-life asks for it.
_DATED_COMPARISONS = _COMPARISONS.add_columns(_C.created_at)
_I = ItemFeaturesRow
_RATINGS = (
    sa.select(_R.event_id, _R.item_key, _R.prompt_key, _R.value, _R.strength, _R.created_at, _I.base_rewards)
    .join_from(_R, _I, (_I.tenant == _R.tenant) & (_I.item_key == _R.item_key) & (_I.features == _OF), isouter=True)
    .where(_R.tenant == _TENANT, _R.user_id == _USER)
)
_DIALECTS = ("sqlite", "postgresql")
_CONTENTS = {
    dialect: [
        sa.select(table.event_id, table.content).where(table.tenant == _TENANT, among(dialect, table.event_id))
        for table in (ComparisonRow, RatingRow)
    ]
    for dialect in _DIALECTS
}
_T = TombstoneRow
_TOMBSTONES = {
    dialect: sa.select(_T.user_id, _T.forgotten_at).where(_T.tenant == _TENANT, among(dialect, _T.user_id))
    for dialect in _DIALECTS
}


def weights(connection: sa.Connection, tenant: str, user_id: str, fingerprint: str) -> tuple[int, StoredWeights | None]:
    """How much feedback a user has given (0: unknown user), and the stored weights, in one statement."""
    row = connection.execute(_WEIGHTS, {"tenant": tenant, "user_id": user_id, "of": fingerprint}).one_or_none()
    if row is None:
        return 0, None
    if row.weights is None:
        return row.feedback, None
    found = np.frombuffer(row.weights, np.float64)
    covariance = None
    if row.covariance is not None:
        covariance = np.frombuffer(row.covariance, np.float64).reshape(len(found), len(found))
    return row.feedback, StoredWeights(found, covariance, row.comparisons, row.seen, row.revision)


def feedback(connection: sa.Connection, tenant: str, user_id: str, features: str, *, dated: bool) -> UserFeedback:
    """All feedback of a user, with ``z`` and base rewards under ``features`` where they are stored.

    Args:
        connection: in a transaction.
        tenant: whose.
        user_id: of whom.
        features: hash under which ``z`` and base rewards were stored.
        dated: whether to read when comparisons were made.
    """
    values = {"tenant": tenant, "user_id": user_id, "of": features}
    # Read first: events that arrive in between make the weights look older than they are, never newer.
    count = connection.scalar(_COUNT, values)
    # Sorted here: databases order text each in a way of their own.
    rows = sorted(connection.execute(_DATED_COMPARISONS if dated else _COMPARISONS, values))
    ratings = [StoredRating(*row[:-1], vector(row[-1])) for row in connection.execute(_RATINGS, values)]
    newest = {rating.item: rating for rating in sorted(ratings, key=lambda r: (r.created_at, r.event_id))}
    return UserFeedback(
        feedback=count or 0,
        event_ids=[row[0] for row in rows],
        items=[(row[1], row[2]) for row in rows],
        strength=[row[3] for row in rows],
        tie=[row[4] for row in rows],
        z=[vector(row[5]) for row in rows],
        created_at=[row[6] for row in rows] if dated else None,
        ratings=[newest[item] for item in sorted(newest)],
    )


def contents(connection: sa.Connection, tenant: str, event_ids: Collection[str]) -> dict[str, bytes]:
    """Content of the stored events among ``event_ids``; a comparison and a rating never share an id."""
    dialect = connection.dialect.name
    values = {"tenant": tenant, "among": listed(dialect, event_ids)}
    return {
        event_id: content for query in _CONTENTS[dialect] for event_id, content in connection.execute(query, values)
    }


def tombstones(connection: sa.Connection, tenant: str, user_ids: Collection[str]) -> Mapping[str, datetime]:
    """When those of the users who were forgotten were."""
    dialect = connection.dialect.name
    rows = connection.execute(_TOMBSTONES[dialect], {"tenant": tenant, "among": listed(dialect, user_ids)})
    return dict(rows.all())


def vector(data: bytes | None) -> NDArray[np.float32] | None:
    """A vector as a database holds it, as an array."""
    return None if data is None else np.frombuffer(data, np.float32)
