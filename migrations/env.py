"""Runs migrations on the connection that mrm_sdk.storage.migrate hands over; leaves the host's logging alone."""

from alembic import context

from mrm_sdk.storage.migrate import VERSION_TABLE, use_schema
from mrm_sdk.storage.tables import Base

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("Run migrations with: mrm db upgrade --database URL")

use_schema(connection)  # SQL in the versions names no schema
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    # SQLite can roll back changes of the schema too, and one transaction also keeps a second upgrader waiting.
    transactional_ddl=True,
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
