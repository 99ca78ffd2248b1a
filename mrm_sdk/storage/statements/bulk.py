"""Thousands of rows per call, without SQLAlchemy's work for each row and parameter."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from mrm_sdk.storage.tables import Base

DIALECTS = ("sqlite", "postgresql")


def insert_into(dialect: str, table: type[Base]) -> Any:
    """An INSERT with ON CONFLICT: the databases agree on the syntax, but SQLAlchemy has one class for each."""
    return (postgresql if dialect == "postgresql" else sqlite).insert(table)


def insert_rows(connection: sa.Connection, statement: sa.Insert, rows: Sequence[tuple[Any, ...]]) -> None:
    """Inserts rows: SQLAlchemy compiles the statement once, and the driver gets the values unchanged.

    Args:
        connection: in a writing transaction.
        statement: an INSERT without values; a module-level one, because its SQL text is cached.
        rows: values of all columns in the table's order, times converted by :func:`time_converter`.
    """
    if not rows:
        return
    schema = (connection.get_execution_options().get("schema_translate_map") or {}).get(None)
    kind: Any = type(connection.dialect)
    if len(rows) == 1:
        connection.exec_driver_sql(_sql_text(statement, kind, schema), rows[0])
    elif connection.dialect.name == "postgresql":
        # Ten times faster than row by row: one statement with an array for each column.
        columns = tuple(list(column) for column in zip(*rows, strict=True))
        connection.exec_driver_sql(_sql_text(_from_arrays(statement), kind, schema), columns)
    else:
        connection.exec_driver_sql(_sql_text(statement, kind, schema), list(rows))


@lru_cache(maxsize=32)
def _from_arrays(statement: sa.Insert) -> sa.Insert:
    columns = list(statement.table.columns)
    lists = (sa.cast(sa.bindparam(column.name), postgresql.ARRAY(column.type)) for column in columns)
    rows = sa.func.unnest(*lists).table_valued(*(column.name for column in columns)).render_derived()
    return statement.from_select([column.name for column in columns], sa.select(*rows.c))


@lru_cache(maxsize=128)
def _sql_text(statement: sa.Insert, kind: Callable[..., sa.Dialect], schema: str | None) -> str:
    """The statement's SQL, with parameters by position."""
    dialect = kind()
    if dialect.paramstyle == "pyformat":
        dialect = kind(paramstyle="format")
    keys = None if statement.select is not None else [column.name for column in statement.table.columns]
    compiled = statement.compile(
        dialect=dialect,
        column_keys=keys,
        schema_translate_map={None: schema} if schema else None,
        render_schema_translate=bool(schema),
    )
    return str(compiled)


def time_converter(connection: sa.Connection) -> Callable[[datetime], Any]:
    """Returns the function that converts a time to what the driver accepts."""
    if connection.dialect.name == "sqlite":  # the text that SQLAlchemy writes, six times faster
        return lambda moment: moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
    return lambda moment: moment


def is_listed(dialect: str, column: Any) -> sa.ColumnElement[bool]:
    """``column`` is one of the texts in the parameter ``listed``: a single parameter for any number of texts."""
    result: sa.ColumnElement[bool]
    if dialect == "postgresql":
        result = column == sa.any_(sa.bindparam("listed", type_=postgresql.ARRAY(sa.Text)))
    else:
        texts = sa.func.json_each(sa.bindparam("listed")).table_valued("value")
        result = column.in_(sa.select(texts.c.value))
    return result


def list_parameter(dialect: str, texts: Collection[str]) -> Any:
    """The value of the parameter ``listed``."""
    return list(texts) if dialect == "postgresql" else json.dumps(list(texts))
