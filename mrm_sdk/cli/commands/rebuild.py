"""``mrm rebuild``: stored feedback gets the features of another bundle, while the old one serves."""

from __future__ import annotations

from pathlib import Path

from mrm_sdk.cli.progress import progress
from mrm_sdk.client import Client
from mrm_sdk.errors import ConfigurationError, NotFoundError
from mrm_sdk.schemas.results import Rebuilt
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database


def run(database: str, bundle: Path, tenant: str) -> Rebuilt:
    """Computes what ``bundle`` lacks of a tenant's feedback; one that was stopped goes on where it was."""
    opened = Database(database, Settings())
    if opened.is_in_memory or opened.is_new:  # an empty file would be made, and nothing be found in it
        kind = ConfigurationError if opened.is_in_memory else NotFoundError
        raise kind(f"There is no feedback in {opened.url}; name the database that your application records into.")
    opened.close()
    with progress() as report, Client(database, bundle=bundle, tenant=tenant) as client:
        return client.rebuild(progress=report)
