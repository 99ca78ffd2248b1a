"""Migrations: the revision of a database's tables, and bringing them up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from mrm_sdk.errors import NotFoundError, SchemaAheadError, SchemaOutdatedError
from mrm_sdk.storage.database import Database
from mrm_sdk.storage.tables import Base

VERSION_TABLE = "mrm_alembic_version"
# An arbitrary number, so that no other program uses the same advisory lock.
_LOCK = 0x6D726D5F73646B


def upgrade(database: Database, revision: str = "head") -> tuple[str | None, str | None]:
    """Brings the tables to ``revision`` in one transaction; a second process that upgrades waits for it.

    Returns:
        The revision before and after.

    Raises:
        SchemaAheadError: the tables are newer than this code.
        DatabaseUnavailableError: the database cannot be reached or written.
    """
    config, script = _migrations()
    head = script.get_current_head()
    if revision == "head" and current(database) == head:
        return head, head  # without waiting for the write lock

    def work(connection: sa.Connection) -> tuple[str | None, str | None]:
        if database.dialect == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        before = _revision(connection)
        _require_known(script, before, database)
        if before != head or revision != "head":
            _create_schema(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
        return before, _revision(connection)

    return database.run(work, write=True)


def current(database: Database) -> str | None:
    """The revision of the tables; ``None`` if there are none. Creates no file.

    Raises:
        DatabaseUnavailableError: the database cannot be reached.
    """
    if database.is_new:
        return None
    return database.run(_revision)


def require_current(database: Database) -> None:
    """Makes sure that the tables are at this code's revision.

    Raises:
        SchemaOutdatedError: they are older, or absent.
        SchemaAheadError: they are newer.
    """
    _, script = _migrations()
    revision = current(database)
    _require_known(script, revision, database)
    if revision != script.get_current_head():
        raise SchemaOutdatedError(
            f"The tables of {database.url} are at revision {revision or 'none'}, this code needs "
            f"{script.get_current_head()}. Run: {_command(database)}"
        )


def check(database: Database) -> list[str]:
    """Compares the tables with the models.

    Returns:
        One line per difference; empty if they are the same.

    Raises:
        SchemaOutdatedError: the tables are older than this code, or absent.
        SchemaAheadError: they are newer.
    """
    require_current(database)

    def work(connection: sa.Connection) -> list[str]:
        use_schema(connection)
        context = MigrationContext.configure(
            connection,
            opts={"version_table": VERSION_TABLE, "compare_type": True, "include_name": _ours},
        )
        return [repr(difference) for difference in compare_metadata(context, Base.metadata)]

    return database.run(work)


def use_schema(connection: sa.Connection) -> str | None:
    """Puts our own schema first for all names until the transaction ends, also in SQL that Alembic writes.

    Returns:
        The schema's name; ``None`` if there is no schema of our own, and nothing was changed.
    """
    schema = _schema(connection)
    if schema is not None:
        quoted = connection.dialect.identifier_preparer.quote_schema(schema)
        # For this transaction only: a pooler may give the session to another client afterwards.
        connection.execute(sa.select(sa.func.set_config("search_path", quoted, True)))
    return schema


def _create_schema(connection: sa.Connection) -> None:
    schema = use_schema(connection)
    # CREATE SCHEMA IF NOT EXISTS needs the right to create schemas even if the schema exists.
    if schema is not None and not sa.inspect(connection).has_schema(schema):
        connection.execute(sa.schema.CreateSchema(schema))


def _command(database: Database) -> str:
    schema = _schema(database.engine)
    return f"{f'MRM_DATABASE_SCHEMA={schema} ' if schema else ''}mrm db upgrade --database URL"


def _schema(bind: sa.Engine | sa.Connection) -> str | None:
    schema: str | None = (bind.get_execution_options().get("schema_translate_map") or {}).get(None)
    return schema


def _ours(name: str | None, kind: str, _parents: Any) -> bool:
    """Leaves the host's own tables out of the comparison."""
    return kind != "table" or name in Base.metadata.tables


def _revision(connection: sa.Connection) -> str | None:
    use_schema(connection)
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def _require_known(script: ScriptDirectory, revision: str | None, database: Database) -> None:
    if revision is not None and revision not in {known.revision for known in script.walk_revisions()}:
        raise SchemaAheadError(
            f"The tables of {database.url} are at revision {revision!r}, which this version of mrm-sdk does not "
            "know: they belong to a newer one. Run: pip install --upgrade mrm-sdk"
        )


def _migrations() -> tuple[Config, ScriptDirectory]:
    package = Path(__file__).parents[1]
    # Inside the wheel, or beside the package in a source tree.
    folder = next((f for f in (package / "_migrations", package.parent / "migrations") if f.is_dir()), None)
    if folder is None:
        raise NotFoundError("This installation lacks the migrations. Run: pip install --force-reinstall mrm-sdk")
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    return config, ScriptDirectory.from_config(config)
