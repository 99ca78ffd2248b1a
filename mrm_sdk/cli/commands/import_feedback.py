"""``mrm import``: a data set becomes events in a database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mrm_sdk.cli.datasets import read_all
from mrm_sdk.cli.output import say
from mrm_sdk.cli.progress import progress
from mrm_sdk.data.rows import SUFFIXES
from mrm_sdk.errors import ConfigurationError
from mrm_sdk.schemas.feedback import Feedback
from mrm_sdk.schemas.results import Recorded
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database, Store, upgrade
from mrm_sdk.storage.recording import collect, observe_unencoded


def run(dataset: Path, database: str, tenant: str, bundle: Path | None, data_format: str) -> Recorded:
    """Records all that ``dataset`` says; with a bundle, features are computed at once.

    A file of ratings beside comparisons is left out, which is said on stderr: recorded as well, what the comparisons
    were made from would count twice.
    """
    settings = Settings()
    opened = Database(database, settings)
    if opened.is_in_memory:
        raise ConfigurationError("A database in memory is gone when this command ends; name a file: sqlite:///mrm.db")
    with progress() as report:
        data = read_all(dataset, data_format)
        beside = next((path for suffix in SUFFIXES if (path := dataset / f"ratings{suffix}").is_file()), None)
        if beside is not None and len(data):
            left_out = f"{beside.name} is left out: the comparisons beside it are usually made from it"
            say(left_out)

        def counted(step: int = 500) -> Iterator[Feedback]:
            total = len(data) + len(data.ratings or ())
            for number, given in enumerate(data.feedback(), 1):
                yield given
                if number % step == 0 or number == total:
                    report("recording", number, total)

        if bundle is not None:
            from mrm_sdk.client import Client  # loads torch, which storing alone does not need

            with Client(database, bundle=bundle, tenant=tenant, settings=settings) as client:
                return client.record_many(counted())
        store = Store(opened, tenant, store_text=settings.store_text)
        upgrade(opened)
        return collect(observe_unencoded(store, counted(), settings.chunk_size))
