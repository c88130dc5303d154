"""Writing: all that a transaction changed, in one statement, so that it costs one round trip and no compiling."""

from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import inspect
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstanceState
from sqlalchemy.sql.elements import NamedColumn

from caseward.db.tables import Base

Part = tuple[str, list[Any]]

# The same few shapes of statements come again and again; the driver prepares each on its fifth use.
_texts: dict[tuple[Any, ...], str] = {}


async def write_together(session: AsyncSession) -> None:
    """Write every new and changed row of the session at once; afterwards the session knows none of them any more.

    One `WITH` of all inserts and updates: Postgres checks foreign keys at its end, so their order doesn't matter.
    """
    parts = [part for row in (*session.new, *session.dirty) if (part := _part(row)) is not None]
    if parts:
        shape = tuple(text for text, _ in parts)
        if shape not in _texts:
            named = ", ".join(f"w{number} AS ({text})" for number, text in enumerate(shape))
            _texts[shape] = f"WITH {named} SELECT 1"
        connection = await session.connection()
        await connection.exec_driver_sql(_texts[shape], tuple(value for _, values in parts for value in values))
    session.expunge_all()


def _part(row: Base) -> Part | None:
    state: InstanceState[Any] = inspect(row)
    attributes = state.mapper.column_attrs
    table = str(state.mapper.local_table)
    if state.key is None:
        given = [(attributes[key].columns[0], value) for key, value in state.dict.items() if key in attributes]
        return _insert(table, tuple(column.name for column, _ in given)), [_bound(*pair) for pair in given]
    changed = [
        (attributes[key].columns[0], state.dict[key])
        for key in state.committed_state
        if state.attrs[key].history.has_changes()
    ]
    if not changed:
        return None
    key = tuple(column.name for column in state.mapper.primary_key)
    values = [_bound(*pair) for pair in changed]
    return _update(table, tuple(column.name for column, _ in changed), key), [*values, *(state.identity or ())]


def _insert(table: str, columns: tuple[str, ...]) -> str:
    shape = ("insert", table, columns)
    if shape not in _texts:
        quoted, places = ", ".join(f'"{name}"' for name in columns), ", ".join("%s" for _ in columns)
        _texts[shape] = f"INSERT INTO {table} ({quoted}) VALUES ({places})"  # noqa: S608 - our own names only
    return _texts[shape]


def _update(table: str, columns: tuple[str, ...], key: tuple[str, ...]) -> str:
    shape = ("update", table, columns, key)
    if shape not in _texts:
        values, where = ", ".join(f'"{name}" = %s' for name in columns), " AND ".join(f'"{name}" = %s' for name in key)
        _texts[shape] = f"UPDATE {table} SET {values} WHERE {where}"  # noqa: S608 - our own names only
    return _texts[shape]


def _bound(column: NamedColumn[Any], value: Any) -> Any:
    return Jsonb(value) if value is not None and isinstance(column.type, JSONB) else value
