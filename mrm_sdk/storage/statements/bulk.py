"""Thousands of rows in one call, past what SQLAlchemy does for each row and parameter; imports the tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from mrm_sdk.storage.tables import Base


def insert_into(dialect: str, table: type[Base]) -> Any:
    """An INSERT that can say ON CONFLICT, which both databases spell alike but SQLAlchemy keeps apart."""
    return (postgresql if dialect == "postgresql" else sqlite).insert(table)


def insert_rows(connection: sa.Connection, statement: sa.Insert, rows: Sequence[tuple[Any, ...]]) -> None:
    """Inserts rows; SQLAlchemy spells the statement, once, and the driver takes the values as they are.

    Args:
        connection: in a writing transaction.
        statement: an INSERT without values; one that lives on, for its spelling is remembered.
        rows: values of all columns, in the table's order, times as :func:`moments` makes them.
    """
    if not rows:
        return
    schema = (connection.get_execution_options().get("schema_translate_map") or {}).get(None)
    kind: Any = type(connection.dialect)
    if len(rows) == 1:
        connection.exec_driver_sql(_spelled(statement, kind, schema), rows[0])
    elif connection.dialect.name == "postgresql":
        # Ten times as quick as row after row: one statement, a list for each column.
        columns = tuple(list(column) for column in zip(*rows, strict=True))
        connection.exec_driver_sql(_spelled(_of_lists(statement), kind, schema), columns)
    else:
        connection.exec_driver_sql(_spelled(statement, kind, schema), list(rows))


@lru_cache(maxsize=32)
def _of_lists(statement: sa.Insert) -> sa.Insert:
    columns = list(statement.table.columns)
    lists = (sa.cast(sa.bindparam(column.name), postgresql.ARRAY(column.type)) for column in columns)
    rows = sa.func.unnest(*lists).table_valued(*(column.name for column in columns)).render_derived()
    return statement.from_select([column.name for column in columns], sa.select(*rows.c))


@lru_cache(maxsize=128)
def _spelled(statement: sa.Insert, kind: Callable[..., sa.Dialect], schema: str | None) -> str:
    """A statement with its parameters by position."""
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


def moments(connection: sa.Connection) -> Callable[[datetime], Any]:
    """What turns a time into what the driver takes."""
    if connection.dialect.name == "sqlite":  # the text that SQLAlchemy makes of a time, six times as quick
        return lambda moment: moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
    return lambda moment: moment


def among(dialect: str, column: Any) -> sa.ColumnElement[bool]:
    """``column`` holds one of the texts that the parameter ``among`` lists: one parameter, however many they are."""
    result: sa.ColumnElement[bool]
    if dialect == "postgresql":
        result = column == sa.any_(sa.bindparam("among", type_=postgresql.ARRAY(sa.Text)))
    else:
        texts = sa.func.json_each(sa.bindparam("among")).table_valued("value")
        result = column.in_(sa.select(texts.c.value))
    return result


def listed(dialect: str, texts: Collection[str]) -> Any:
    """The value of the parameter ``among``."""
    return list(texts) if dialect == "postgresql" else json.dumps(list(texts))
