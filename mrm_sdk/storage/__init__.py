"""Users' feedback and weights in a SQL database; the only place that knows SQL."""

from mrm_sdk.storage.database import Database
from mrm_sdk.storage.events import ComparisonEvent, Outcome, StoredWeights, UserFeedback
from mrm_sdk.storage.migrate import check, current, upgrade
from mrm_sdk.storage.store import Store

__all__ = [
    "ComparisonEvent",
    "Database",
    "Outcome",
    "Store",
    "StoredWeights",
    "UserFeedback",
    "check",
    "current",
    "upgrade",
]
