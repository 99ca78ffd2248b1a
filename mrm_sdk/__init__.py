"""A reward model for every user of an application; importing it opens nothing and loads no heavy library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mrm_sdk.errors import (
    BundleDamagedError,
    BundleError,
    BundleMismatchError,
    ClientClosedError,
    ConfigurationError,
    ConflictError,
    ContentionError,
    DatabaseError,
    DatabaseUnavailableError,
    DatasetError,
    EmbeddingError,
    EncoderError,
    EventExpiredError,
    InvalidInputError,
    MissingDependencyError,
    MrmError,
    NotFoundError,
    OutOfMemoryError,
    OutputError,
    ProviderError,
    SchemaAheadError,
    SchemaOutdatedError,
    TextRefusedError,
    TrainingError,
    UserForgottenError,
)
from mrm_sdk.lazy import lazy_exports
from mrm_sdk.version import __version__

if TYPE_CHECKING:
    from mrm_sdk.aclient import AsyncClient
    from mrm_sdk.bundle import Bundle
    from mrm_sdk.client import Client
    from mrm_sdk.encoders.remote import Limits, RemoteEncoder
    from mrm_sdk.schemas.feedback import Comparison, Ranking, Rating, Thumb
    from mrm_sdk.schemas.items import Message, Response
    from mrm_sdk.schemas.requests import ScoreRequest
    from mrm_sdk.schemas.results import (
        Counted,
        Forgotten,
        Pruned,
        Ranked,
        Rebuilt,
        Recorded,
        Refusal,
        RefusedEvent,
        UserReward,
        UserSummary,
        WeightsSummary,
    )
    from mrm_sdk.settings import Settings

__all__ = [
    "AsyncClient",
    "Bundle",
    "BundleDamagedError",
    "BundleError",
    "BundleMismatchError",
    "Client",
    "ClientClosedError",
    "Comparison",
    "ConfigurationError",
    "ConflictError",
    "ContentionError",
    "Counted",
    "DatabaseError",
    "DatabaseUnavailableError",
    "DatasetError",
    "EmbeddingError",
    "EncoderError",
    "EventExpiredError",
    "Forgotten",
    "InvalidInputError",
    "Limits",
    "Message",
    "MissingDependencyError",
    "MrmError",
    "NotFoundError",
    "OutOfMemoryError",
    "OutputError",
    "ProviderError",
    "Pruned",
    "Ranked",
    "Ranking",
    "Rating",
    "Rebuilt",
    "Recorded",
    "Refusal",
    "RefusedEvent",
    "RemoteEncoder",
    "Response",
    "SchemaAheadError",
    "SchemaOutdatedError",
    "ScoreRequest",
    "Settings",
    "TextRefusedError",
    "Thumb",
    "TrainingError",
    "UserForgottenError",
    "UserReward",
    "UserSummary",
    "WeightsSummary",
    "__version__",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "AsyncClient": "mrm_sdk.aclient",
        "Bundle": "mrm_sdk.bundle",
        "Client": "mrm_sdk.client",
        "Comparison": "mrm_sdk.schemas.feedback",
        "Counted": "mrm_sdk.schemas.results",
        "Forgotten": "mrm_sdk.schemas.results",
        "Limits": "mrm_sdk.encoders.remote",
        "Message": "mrm_sdk.schemas.items",
        "Pruned": "mrm_sdk.schemas.results",
        "Ranked": "mrm_sdk.schemas.results",
        "Ranking": "mrm_sdk.schemas.feedback",
        "Rating": "mrm_sdk.schemas.feedback",
        "Rebuilt": "mrm_sdk.schemas.results",
        "Recorded": "mrm_sdk.schemas.results",
        "Refusal": "mrm_sdk.schemas.results",
        "RefusedEvent": "mrm_sdk.schemas.results",
        "RemoteEncoder": "mrm_sdk.encoders.remote",
        "Response": "mrm_sdk.schemas.items",
        "ScoreRequest": "mrm_sdk.schemas.requests",
        "Settings": "mrm_sdk.settings",
        "Thumb": "mrm_sdk.schemas.feedback",
        "UserReward": "mrm_sdk.schemas.results",
        "UserSummary": "mrm_sdk.schemas.results",
        "WeightsSummary": "mrm_sdk.schemas.results",
    },
)
