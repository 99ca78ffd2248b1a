"""SELECT: what adaptation and scoring read. Statements are built once, because building one costs more than running it.

Every statement is bound to a tenant.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from mrm_sdk.storage.events import NOTHING_COUNTED, OUTDATED, StoredRating, StoredWeights, UserFeedback, counted
from mrm_sdk.storage.statements.bulk import DIALECTS, is_listed, list_parameter
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
    sa.select(
        *(_U.feedback_version, _W.weights, _W.covariance, _W.comparisons, _W.feedback_version, _W.revision),
        *(_W.compared, _W.rating_pairs, _W.ratings_alone),
    )
    .join_from(_U, _W, (_W.tenant == _U.tenant) & (_W.user_id == _U.user_id) & (_W.fingerprint == _OF), isouter=True)
    .where(_U.tenant == _TENANT)
)
WEIGHTS = _WEIGHTS.where(_U.user_id == _USER)
_WEIGHTS_OF = {dialect: _WEIGHTS.where(is_listed(dialect, _U.user_id)).add_columns(_U.user_id) for dialect in DIALECTS}
FEEDBACK_VERSION = sa.select(_U.feedback_version).where(_U.tenant == _TENANT, _U.user_id == _USER)
_Z = ComparisonFeaturesRow
COMPARISONS = (
    sa.select(_C.event_id, _C.chosen, _C.rejected, _C.strength, _C.tie, _Z.z)
    .join_from(
        _C, _Z, (_Z.tenant == _C.tenant) & (_Z.event_id == _C.event_id) & (_Z.features_hash == _OF), isouter=True
    )
    .where(_C.tenant == _TENANT, _C.user_id == _USER)
)
# Reading a time takes as long as reading the rest of a row; only a half-life needs it.
DATED_COMPARISONS = COMPARISONS.add_columns(_C.created_at)
_I = ItemFeaturesRow
RATINGS = (
    sa.select(_R.event_id, _R.item_key, _R.prompt_key, _R.value, _R.strength, _R.created_at, _I.base_rewards)
    .join_from(
        _R, _I, (_I.tenant == _R.tenant) & (_I.item_key == _R.item_key) & (_I.features_hash == _OF), isouter=True
    )
    .where(_R.tenant == _TENANT, _R.user_id == _USER)
)
_CONTENTS = {
    dialect: [
        sa.select(table.event_id, table.content).where(table.tenant == _TENANT, is_listed(dialect, table.event_id))
        for table in (ComparisonRow, RatingRow)
    ]
    for dialect in DIALECTS
}
_T = TombstoneRow
_TOMBSTONES = {
    dialect: sa.select(_T.user_id, _T.forgotten_at).where(_T.tenant == _TENANT, is_listed(dialect, _T.user_id))
    for dialect in DIALECTS
}


def stored_weights(row: Any) -> tuple[int, StoredWeights | None]:
    """The feedback version (0: unknown user) and the stored weights, from the row of ``WEIGHTS``, if there is one."""
    if row is None:
        return 0, None
    version, weights, covariance, comparisons, adapted_to, revision, *kinds = row
    if weights is None:
        return version, None
    weights = np.frombuffer(weights, np.float64)
    if covariance is not None:
        covariance = np.frombuffer(covariance, np.float64).reshape(len(weights), len(weights))
    moved = counted(*kinds)
    if moved is None:
        moved, adapted_to = NOTHING_COUNTED, OUTDATED
    return version, StoredWeights(weights, covariance, comparisons, adapted_to, revision, moved)


def weights_of(
    connection: sa.Connection, tenant: str, user_ids: Collection[str], fingerprint: str
) -> dict[str, tuple[int, StoredWeights | None]]:
    """What :func:`stored_weights` says of each of ``user_ids`` who is known."""
    dialect = connection.dialect.name
    values = {"tenant": tenant, "of": fingerprint, "listed": list_parameter(dialect, user_ids)}
    return {row[-1]: stored_weights(row[:-1]) for row in connection.execute(_WEIGHTS_OF[dialect], values)}


def user_feedback(
    feedback_version: int, comparisons: Iterable[Any], ratings: Iterable[Any], *, dated: bool
) -> UserFeedback:
    """A user's feedback, from the rows of ``COMPARISONS`` (``dated``: ``DATED_COMPARISONS``) and ``RATINGS``."""
    # Sorted here: each database has its own order of texts.
    rows = sorted(comparisons)
    stored = [StoredRating._make((*row[:-1], vector(row[-1]))) for row in ratings]
    newest = {rating.item: rating for rating in sorted(stored, key=lambda r: (r.created_at, r.event_id))}
    return UserFeedback(
        feedback_version=feedback_version,
        event_ids=[row[0] for row in rows],
        items=[(row[1], row[2]) for row in rows],
        strength=[row[3] for row in rows],
        tie=[row[4] for row in rows],
        z=[vector(row[5]) for row in rows],
        created_at=[row[6] for row in rows] if dated else None,
        ratings=[newest[item] for item in sorted(newest)],
    )


def contents(connection: sa.Connection, tenant: str, event_ids: Collection[str]) -> dict[str, bytes]:
    """Content hashes of those ``event_ids`` that are stored; a comparison and a rating never share an id."""
    dialect = connection.dialect.name
    values = {"tenant": tenant, "listed": list_parameter(dialect, event_ids)}
    return {
        event_id: content for query in _CONTENTS[dialect] for event_id, content in connection.execute(query, values)
    }


def tombstones(connection: sa.Connection, tenant: str, user_ids: Collection[str]) -> Mapping[str, datetime]:
    """When users were forgotten, for those of ``user_ids`` who were."""
    dialect = connection.dialect.name
    rows = connection.execute(_TOMBSTONES[dialect], {"tenant": tenant, "listed": list_parameter(dialect, user_ids)})
    return dict(rows.all())


def vector(data: bytes | None) -> NDArray[np.float32] | None:
    """An array of a stored vector."""
    return None if data is None else np.frombuffer(data, np.float32)
