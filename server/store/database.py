"""The database: one engine, one schema, short transactions.

Domains declare their tables on ``METADATA`` in their own file of this folder; ``open_database``
imports them all, so that a new domain is one new file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

import server.store

METADATA = sa.MetaData()


@dataclass(frozen=True, slots=True)
class Database:
    """An open database. Safe to share between threads."""

    engine: sa.Engine

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction: committed at the end, rolled back on an exception."""
        with self.engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def open_database(url: str) -> Database:
    """Return the database at ``url`` (``sqlite:///path`` or another SQLAlchemy URL) with its tables made."""
    engine = sa.create_engine(url, connect_args={"timeout": 30} if url.startswith("sqlite") else {})
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _tune_sqlite)
    for module in pkgutil.iter_modules(server.store.__path__):
        importlib.import_module(f"server.store.{module.name}")
    METADATA.create_all(engine)
    return Database(engine)


def upsert(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """Return an insert into ``table`` that can say what happens when the key is there already."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def insert_many(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Append ``rows``, all with the same columns, whose values the driver takes as they are (no JSON).

    The statement is SQLAlchemy's, the values go past its types: a third of the time for many rows.
    """
    columns = tuple(rows[0])
    statement = table.insert().values(dict.fromkeys(columns)).compile(dialect=connection.dialect)
    order = statement.positiontup
    if order is None:
        connection.exec_driver_sql(str(statement), [dict(row) for row in rows])
    else:
        connection.exec_driver_sql(str(statement), [tuple(row[name] for name in order) for row in rows])


def _tune_sqlite(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    # FULL: under WAL, NORMAL may lose the last commits in a power cut, and devices delete what was acknowledged
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
