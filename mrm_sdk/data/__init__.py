"""People's judgements as data sets: reading, checking, ratings to pairs, other programs' formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mrm_sdk.lazy import lazy_exports

if TYPE_CHECKING:
    from mrm_sdk.data.checking import check_dataset
    from mrm_sdk.data.contents import QUERY, SUPPORT
    from mrm_sdk.data.datasets import Dataset, read_dataset
    from mrm_sdk.data.rating_pairs import from_ratings
    from mrm_sdk.data.readers.source import Reader
    from mrm_sdk.data.vectors import write_embedded

__all__ = [
    "QUERY",
    "SUPPORT",
    "Dataset",
    "Reader",
    "check_dataset",
    "from_ratings",
    "read_dataset",
    "write_embedded",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Dataset": "mrm_sdk.data.datasets",
        "QUERY": "mrm_sdk.data.contents",
        "Reader": "mrm_sdk.data.readers.source",
        "SUPPORT": "mrm_sdk.data.contents",
        "check_dataset": "mrm_sdk.data.checking",
        "from_ratings": "mrm_sdk.data.rating_pairs",
        "read_dataset": "mrm_sdk.data.datasets",
        "write_embedded": "mrm_sdk.data.vectors",
    },
)
