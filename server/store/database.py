"""The database: one engine, one schema, short transactions.

Each domain declares its tables on ``METADATA`` in its own file of this folder; ``declared_tables`` imports them all,
so that a new domain is one new file. ``open_database`` opens the database.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from server import store
from server.errors import (
    DatabaseRefusedError,
    DatabaseUnavailableError,
    DiskFullError,
    ServerError,
    ValueRefusedError,
)
from server.store.revisions import prepare

Row = TypeVar("Row")
METADATA = sa.MetaData()
_ROW_ID = sa.Integer().with_variant(sa.BigInteger(), "postgresql")  # SQLite's INTEGER has 64 bits
_PATIENCE = {
    "connect_timeout": "10", "keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3",
    "options": "-c idle_in_transaction_session_timeout=60000 -c synchronous_commit=on",
}  # fmt: skip
"""Seconds (and probes) after which a host of PostgreSQL that is gone counts as such; a URL may have its own.

What is acknowledged is on the disk, whatever the host's setting. And the milliseconds after which PostgreSQL ends a
transaction in which nothing comes: a process that is stopped in the midst of one would keep others from its devices.
"""
_DISK_FULL = "53100"
_VALUES = ("22", "54")  # classes of SQLSTATE: data exception, program limit exceeded


@dataclass(frozen=True, slots=True)
class Database:
    """An open database. Safe to share between threads."""

    engine: sa.Engine

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction: committed at the end, rolled back on an exception.

        Raises:
            DiskFullError: If the disk is full.
            DatabaseRefusedError: If the database is locked, read-only or gone.
            ValueRefusedError: If it can't store a value.
        """
        try:
            with self.engine.begin() as connection:
                yield connection
        except sa.exc.IntegrityError:
            raise
        except sa.exc.DBAPIError as error:
            refusal = _refusal(error)
            if refusal is None:
                raise
            raise refusal from error
        except OverflowError as error:  # raised by Python's SQLite driver for an integer beyond 64 bits
            message = f"Expected numbers that the database can hold, got: {error}"
            raise ValueRefusedError(message) from error

    @property
    def is_shared(self) -> bool:
        """Whether other processes may write too, so that nothing of it may be cached without asking."""
        return self.engine.dialect.name != "sqlite"

    def row(self, ask: Callable[[sa.Connection], Row | None], missing: ServerError) -> Row:
        """Return the row, or what is made of one, that ``ask`` returns in one transaction.

        Raises:
            ServerError: ``missing``, if there is none.
        """
        with self.begin() as connection:
            found = ask(connection)
        if found is None:
            raise missing
        return found

    def size_bytes(self) -> int | None:
        """Return the bytes of a PostgreSQL database on its disk; None if it does not answer, and for SQLite's file."""
        if not self.is_shared:
            return None
        try:
            with self.begin() as connection:
                return int(
                    connection.execute(sa.select(sa.func.pg_database_size(sa.func.current_database()))).scalar_one()
                )
        except ServerError:
            return None

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def open_database(url: str, directory: str = "DIR", *, may_be_new: bool = True) -> Database:
    """Return the database at ``url`` (``sqlite:///path`` or another SQLAlchemy URL), at this version's revision.

    An empty database gets its tables if it ``may_be_new``. ``directory`` is the server's, for error messages.

    Raises:
        DatabaseUnavailableError: If the URL or its driver can't be used.
        DatabaseLostError: If it is empty and not ``may_be_new``.
        DatabaseOutdatedError: If it must be migrated first.
        DatabaseNewerError: If a newer tinyfleet has migrated it.
        DatabaseForeignError: If its tables are not a fleet's.
    """
    engine = connect(url)
    try:
        prepare(engine, declared_tables(), directory, may_be_new=may_be_new)
    except BaseException:
        engine.dispose()
        raise
    return Database(engine)


def connect(url: str) -> sa.Engine:
    """Return an engine for ``url``; the revision of the database is not checked.

    Raises:
        DatabaseUnavailableError: If the URL or its driver can't be used.
    """
    try:
        parsed = sa.make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        large = parsed.get_backend_name() == "postgresql"
        arguments = {name: value for name, value in _PATIENCE.items() if name not in parsed.query}
        engine = sa.create_engine(parsed, connect_args=arguments if large else {"timeout": 30}, pool_pre_ping=large)
    except sa.exc.NoSuchModuleError as error:
        message = f"Expected sqlite:///FILE or postgresql://USER@HOST/NAME in store.url, got {shown_url(url)!r}"
        raise DatabaseUnavailableError(message) from error
    except (sa.exc.ArgumentError, ValueError) as error:
        message = f"Expected a database URL (postgresql://USER@HOST/NAME) in store.url, got {shown_url(url)!r}"
        raise DatabaseUnavailableError(message) from error
    except ImportError as error:
        message = (
            f"Expected the driver of {shown_url(url)}, got: {error}: install it, for PostgreSQL with "
            "pip install 'tinyfleet[postgres]'"
        )
        raise DatabaseUnavailableError(message) from error
    if engine.dialect.name not in ("sqlite", "postgresql"):
        message = f"Expected SQLite or PostgreSQL in store.url, got {shown_url(url)!r}"
        raise DatabaseUnavailableError(message)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _tune_sqlite)
    return engine


def declared_tables() -> sa.MetaData:
    """Return the tables of every domain."""
    for module in pkgutil.walk_packages(store.__path__, f"{store.__name__}."):
        if ".migrations" not in module.name:
            importlib.import_module(module.name)
    for table in METADATA.tables.values():
        if "id" in table.c and isinstance(table.c.id.type, sa.Integer):
            table.c.id.type = _ROW_ID
    return METADATA


def has_password(url: str) -> bool:
    """Return whether a password stands in ``url``."""
    return bool(url) and sa.make_url(url).password is not None


def shown_url(url: str) -> str:
    """Return ``url`` without its password."""
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except (sa.exc.ArgumentError, ValueError):
        return url.rpartition("@")[2]


def upsert(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """Return an insert into ``table`` that supports ``on_conflict_do_update`` and ``on_conflict_do_nothing``."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def insert_many(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Append ``rows``, all with the same columns and with values that the driver accepts directly (no JSON).

    SQLAlchemy compiles the statement, but its types don't convert the values: a third of the time for many rows. On
    PostgreSQL the rows are copied, in its binary form.
    """
    columns = tuple(rows[0])
    if connection.dialect.name == "postgresql":
        _copy(connection, table, columns, rows)
        return
    statement = table.insert().values(dict.fromkeys(columns)).compile(dialect=connection.dialect)
    order = statement.positiontup
    if order is None:
        connection.exec_driver_sql(str(statement), [dict(row) for row in rows])
    else:
        connection.exec_driver_sql(str(statement), [tuple(row[name] for name in order) for row in rows])


def _copy(
    connection: sa.Connection, table: sa.Table, columns: Sequence[str], rows: Sequence[Mapping[str, object]]
) -> None:  # fmt: skip
    """Copy ``rows`` into ``table``; errors are SQLAlchemy's, as those of any statement.

    Source: PostgreSQL manual, COPY, "Binary Format"; psycopg 3, "Using COPY TO and COPY FROM".
    """
    quoted = connection.dialect.identifier_preparer.quote
    names = ", ".join(quoted(name) for name in columns)
    kinds = [_binary_type(table.c[name].type) for name in columns]
    narrow = [name for name, kind in zip(columns, kinds, strict=True) if kind == "int4"]
    statement = f"COPY {quoted(table.name)} ({names}) FROM STDIN (FORMAT BINARY)"
    with closing(connection.connection.cursor()) as cursor:
        try:
            with cursor.copy(statement) as copy:
                copy.set_types(kinds)
                for row in rows:
                    for name in narrow:
                        if row[name] is not None and not -_INT4 <= row[name] < _INT4:  # type: ignore[operator]  # a number
                            raise OverflowError(f"{name} {row[name]}")
                    copy.write_row([row[name] for name in columns])
        except connection.dialect.loaded_dbapi.Error as error:
            raised = sa.exc.DBAPIError.instance(
                statement, None, error, connection.dialect.loaded_dbapi.Error, dialect=connection.dialect
            )
            raise raised from error


def _binary_type(kind: sa.types.TypeEngine[object]) -> str:
    if isinstance(kind, sa.BigInteger) or kind is _ROW_ID:
        return "int8"
    for known, name in _BINARY_TYPES:
        if isinstance(kind, known):
            return name
    return "text"  # JSON too, whose text the caller has made


_INT4 = 2**31
_BINARY_TYPES = ((sa.Integer, "int4"), (sa.Boolean, "bool"), (sa.Float, "float8"), (sa.LargeBinary, "bytea"))


def delete_some(
    connection: sa.Connection, table: sa.Table, limit: int, *conditions: sa.ColumnElement[bool]
) -> int:  # fmt: skip
    """Delete at most ``limit`` rows of ``table`` that satisfy ``conditions``; return how many.

    The caller repeats it in transactions of their own. The rows are searched before anything is written: however long
    that takes, and however long the backlog, SQLite's write lock is held for the deletion of a portion only.
    """
    key = list(table.primary_key.columns)
    found = connection.execute(sa.select(*key).where(*conditions).limit(limit)).all()
    if not found:
        return 0
    if len(key) == 1:
        connection.execute(table.delete().where(key[0].in_([row[0] for row in found])))
    else:
        mine = sa.and_(*(column == sa.bindparam(f"key_{column.name}") for column in key))
        names = [f"key_{column.name}" for column in key]
        connection.execute(table.delete().where(mine), [dict(zip(names, row, strict=True)) for row in found])
    return len(found)


def delete_arrived_before(connection: sa.Connection, table: sa.Table, before_ms: int, limit: int) -> int:
    """Delete those of the ``limit`` first rows of ``table`` that arrived (``received_ms``) before ``before_ms``.

    Returns how many. Ids grow with the arrival, so the first rows are the oldest.
    """
    first = sa.select(table.c.id, table.c.received_ms).order_by(table.c.id).limit(limit).subquery()
    old = sa.select(first.c.id).where(first.c.received_ms < before_ms)
    return connection.execute(table.delete().where(table.c.id.in_(old))).rowcount


def next_step(error: sa.exc.SQLAlchemyError) -> str:
    """Return the next step for a person when the database refused, in words."""
    text = str(getattr(error, "orig", None) or error)
    if "locked" in text:
        return "another process holds its write lock: find it (fuser FILE), end it or wait, then try again"
    if "readonly" in text or "unable to open" in text:
        return "mount its file system writable, or run as the user that owns the file, then try again"
    if "authentication failed" in text or "no password supplied" in text:
        return "correct the user in store.url, and its password in the file that PGPASSFILE names (0600)"
    if "does not exist" in text:
        return "create that role or database, or correct store.url"
    return "see that it runs and answers, then try again"


def _refusal(error: sa.exc.DBAPIError) -> ServerError | None:
    """Return the error for what a database refused, None for a fault of ours.

    PostgreSQL names the reason by its SQLSTATE: only of classes 22 and 54 are the values to blame. All others are of
    the database (a table or a right is missing, it is read-only, it shuts down), and what was to be written is as good
    as before: a message must not be dropped for it. Source: its manual, appendix A.
    """
    state = getattr(error.orig, "sqlstate", None) or ""
    if state == _DISK_FULL or "database or disk is full" in str(error.orig):
        message = f"Expected room for the database, got: {error.orig}: free the server's disk, then ask again"
        return DiskFullError(message)
    if isinstance(error, sa.exc.DataError) or state[:2] in _VALUES:
        return ValueRefusedError(f"Expected a value that the database can hold, got: {error.orig}")
    if state or isinstance(error, sa.exc.OperationalError):
        return DatabaseRefusedError(f"Expected a database that answers, got: {error.orig}: {next_step(error)}")
    return None


def _tune_sqlite(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    # FULL: under WAL, NORMAL may lose the last commits in a power cut, and devices delete what was acknowledged
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
