"""The database of a command: one that holds feedback already, or one that feedback goes into."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mrm_sdk.errors import ConfigurationError, NotFoundError

if TYPE_CHECKING:
    from mrm_sdk.schemas.feedback import Feedback
    from mrm_sdk.schemas.results import Recorded


def require_tables(url: str) -> str:
    """Makes sure that a database was recorded into before; creates nothing in it.

    A client would create an empty file, or tables in a file of another program, and find nothing there.

    Returns:
        Its URL with the password masked, for messages.

    Raises:
        ConfigurationError: it is in memory, or no database.
        NotFoundError: it does not exist, or has no tables of ours.
        DatabaseError: it cannot be reached.
    """
    from mrm_sdk.settings import Settings
    from mrm_sdk.storage import Database, current

    with closing(Database(url, Settings(), read_only=True)) as database:
        if not database.is_in_memory and current(database) is not None:
            return database.url
        kind = ConfigurationError if database.is_in_memory else NotFoundError
        raise kind(f"There is no feedback in {database.url}; name the database that your application records into.")


@contextmanager
def recorder(url: str, tenant: str, bundle: Path | None) -> Iterator[Callable[[Iterable[Feedback]], Recorded]]:
    """Yields a function that stores feedback; with a bundle, its features too.

    Args:
        url: of the database, which is created where it is a file that does not exist.
        tenant: whose feedback it becomes.
        bundle: whose features are stored; ``None``: a client computes them on first use, and no torch is loaded here.

    Raises:
        ConfigurationError: the database is in memory.
        MrmError: see :class:`~mrm_sdk.Client`.
    """
    from mrm_sdk.engine.recording import record_without_features, summarise
    from mrm_sdk.settings import Settings
    from mrm_sdk.storage import Database, Store, upgrade
    from mrm_sdk.storage.migrate import require_current

    settings = Settings()
    with closing(Database(url, settings)) as database:
        if database.is_in_memory:
            raise ConfigurationError(
                "A database in memory is gone when this command ends; name a file: sqlite:///mrm.db"
            )
        if bundle is not None:
            from mrm_sdk.client import Client  # loads torch, which storing alone does not need

            with Client(url, bundle=bundle, tenant=tenant, settings=settings) as client:
                yield client.record_many
            return
        store = Store(database, tenant, store_text=settings.store_text)

        def record(feedback: Iterable[Feedback]) -> Recorded:
            if settings.auto_migrate:
                upgrade(database)
            else:
                require_current(database)
            return summarise(record_without_features(store, feedback, settings.chunk_size))

        yield record
