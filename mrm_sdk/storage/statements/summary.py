"""SELECT: what is known of a user without any text, in one statement, so as of one moment."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from mrm_sdk.schemas.results import UserSummary, WeightsSummary
from mrm_sdk.storage.events import counted
from mrm_sdk.storage.tables import ComparisonRow, RatingRow, TombstoneRow, UserRow, UserWeightsRow

_T, _U, _W = TombstoneRow, UserRow, UserWeightsRow
_TENANT: Any = sa.bindparam("tenant")
_USER: Any = sa.bindparam("user_id")


def _of_user(table: Any) -> Any:
    return (table.tenant == _TENANT) & (table.user_id == _USER)


def _events(table: Any, *more: Any) -> Any:
    """One row, also where there is no event."""
    count, moment = sa.func.count().label("count"), table.created_at
    times = sa.func.min(moment).label("first"), sa.func.max(moment).label("newest")
    return sa.select(count, *times, *more).where(_of_user(table)).subquery()


_C = _events(ComparisonRow, sa.func.count(sa.case((ComparisonRow.tie, 1))).label("ties")).c
_R = _events(RatingRow).c
# A row for each bundle with weights, or one without.
_SUMMARY = sa.select(
    *(_C.count, _C.ties, _R.count, _C.first, _R.first, _C.newest, _R.newest, _T.forgotten_at),
    *(_W.fingerprint, _W.comparisons, _W.revision, _W.feedback_version == _U.feedback_version),
    *(_W.compared, _W.rating_pairs, _W.ratings_alone),
).select_from(
    sa.join(_C.count.table, _R.count.table, sa.true())
    .outerjoin(_T, _of_user(_T))
    .outerjoin(_U, _of_user(_U))
    .outerjoin(_W, (_W.tenant == _U.tenant) & (_W.user_id == _U.user_id))
)


def read_summary(connection: sa.Connection, tenant: str, user_id: str) -> UserSummary:
    """What is known of a user; zeros and ``None`` of an unknown one."""
    rows = connection.execute(_SUMMARY, {"tenant": tenant, "user_id": user_id}).all()
    comparisons, ties, ratings, *times, forgotten_at = rows[0][:8]
    return UserSummary(
        user_id=user_id,
        comparisons=comparisons,
        ties=ties,
        ratings=ratings,
        first_at=min((moment for moment in times[:2] if moment is not None), default=None),
        newest_at=max((moment for moment in times[2:] if moment is not None), default=None),
        forgotten_at=forgotten_at,
        weights={
            fingerprint: WeightsSummary(
                judgements=judgements,
                counted=(moved := counted(*kinds)),
                revision=revision,
                current=current and moved is not None,
            )
            for fingerprint, judgements, revision, current, *kinds in (row[8:] for row in rows)
            if fingerprint is not None
        },
    )
