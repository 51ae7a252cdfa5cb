"""Reads the revision of a database and migrates it to this version's. The steps are in ``migrations/versions``.

A migration is one exclusive transaction that includes the schema: a process that is killed leaves the old database or
the new one. SQLite needs three things for this: the driver opens no transaction before a schema change, so it is
opened here; foreign keys are off meanwhile, because Alembic replaces a table by a copy; and they are checked before
the commit. Does not ask a person nor make a backup: the caller of ``upgrade`` does both.

Source: SQLAlchemy, "Serializable isolation / Savepoints / Transactional DDL" of its SQLite dialect; sqlite.org,
"Making Other Kinds Of Table Schema Changes".
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from server.errors import DatabaseForeignError, DatabaseLostError, DatabaseNewerError, DatabaseOutdatedError
from server.wording import listed

FIRST = "0001"
_VERSION_TABLE = "alembic_version"
_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK_KEY = 0x74696E79  # the same for all servers on a PostgreSQL database
_SHOWN_LIMIT = 5


@dataclass(frozen=True, slots=True)
class MissingRevision:
    """One revision that a database lacks."""

    revision: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaStatus:
    """The revision of a database, "" for an empty one; ``steps`` are the missing ones, oldest first.

    ``versioned`` is false for a database that commit 42f48ee made, which stores no revision.
    """

    revision: str
    head: str
    steps: tuple[MissingRevision, ...]
    versioned: bool = True

    @property
    def is_empty(self) -> bool:
        """Whether there are no tables yet."""
        return not self.revision

    @property
    def is_current(self) -> bool:
        """Whether this version of tinyfleet can use the database as it is."""
        return self.versioned and self.revision == self.head


def standing_of(engine: sa.Engine) -> SchemaStatus:
    """Return the standing of the database; writes nothing.

    Raises:
        DatabaseNewerError: If a newer tinyfleet has migrated it.
        DatabaseForeignError: If its tables are not those of any tinyfleet since 42f48ee.
    """
    with engine.connect() as connection:
        return _standing(connection)


def prepare(engine: sa.Engine, metadata: sa.MetaData, directory: str, *, may_be_new: bool) -> None:
    """Create the tables of an empty database if it ``may_be_new``; check the revision of any other.

    Raises:
        DatabaseLostError: If it is empty and may not be.
        DatabaseOutdatedError: If it must be migrated first; the message names ``directory``, the server's.
        DatabaseNewerError: If a newer tinyfleet has migrated it.
        DatabaseForeignError: If its tables are not those of any tinyfleet since 42f48ee.
    """
    standing = standing_of(engine)
    if standing.is_empty and not may_be_new:
        message = (
            f"Expected the database of a server that ran before on {directory}, got an empty one: restore it from the "
            "backup; to begin anew, make another directory with fleet-server init"
        )
        raise DatabaseLostError(message)
    if standing.is_empty:
        with _alone(engine) as connection:
            if (standing := _standing(connection)).is_empty:  # otherwise another process was faster
                metadata.create_all(connection)
                _suit_postgres(connection)
                command.stamp(_config(connection, metadata), "head")
                return
    if not standing.is_current:
        message = (
            f"Expected a database at revision {standing.head}, got {standing.revision} of an older tinyfleet: "
            f"run fleet-server migrate {directory}, which makes a backup first"
        )
        raise DatabaseOutdatedError(message)


def upgrade(engine: sa.Engine, metadata: sa.MetaData) -> SchemaStatus:
    """Apply all missing steps or none; return the standing from before.

    Raises:
        DatabaseNewerError: If a newer tinyfleet has migrated it.
        DatabaseForeignError: If its tables are not ours, or a foreign key points to a missing row.
    """
    with _alone(engine) as connection:
        standing = _standing(connection)
        config = _config(connection, metadata)
        if not standing.versioned:
            command.stamp(config, FIRST)
        command.upgrade(config, "head")
        _suit_postgres(connection)
        if connection.dialect.name == "sqlite":
            dangling = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(_SHOWN_LIMIT)
            if dangling:
                rows = ", ".join(f"{row[0]} row {row[1]} to {row[2]}" for row in dangling)
                message = f"Expected every row's parent in the database, got: {rows}. Nothing was changed"
                raise DatabaseForeignError(message)
    return standing


def _standing(connection: sa.Connection) -> SchemaStatus:
    tables = set(sa.inspect(connection).get_table_names())
    script = _script()
    head = script.get_current_head() or ""
    known = {step.revision: MissingRevision(step.revision, step.doc or "") for step in script.walk_revisions()}
    order = tuple(known)[::-1]  # oldest first
    revision = MigrationContext.configure(connection).get_current_revision() if _VERSION_TABLE in tables else None
    if revision is None:
        if not tables & set(_first_columns()):
            return SchemaStatus(revision="", head=head, steps=tuple(known[name] for name in order))
        _check_first(connection, tables)
        return SchemaStatus(
            revision=FIRST, head=head, steps=tuple(known[name] for name in order[1:]), versioned=False
        )  # fmt: skip
    if revision not in known:
        message = (
            f"Expected a database at revision {head} or older, got {revision}, of a newer tinyfleet: install that "
            "version, or restore the backup that was made before it migrated the database"
        )
        raise DatabaseNewerError(message)
    after = order.index(revision) + 1
    return SchemaStatus(revision=revision, head=head, steps=tuple(known[name] for name in order[after:]))


def _check_first(connection: sa.Connection, tables: set[str]) -> None:
    inspector = sa.inspect(connection)
    missing = []
    for table, columns in _first_columns().items():
        if table not in tables:
            missing.append(table)
            continue
        found = {column["name"] for column in inspector.get_columns(table)}
        missing += [f"{table}.{column}" for column in sorted(columns - found)]
    if missing:
        message = (
            "Expected the tables of a fleet's database of commit 42f48ee or newer, got one without "
            f"{listed(missing, _SHOWN_LIMIT)}: "
            "start it once with tinyfleet of that commit, or set store.url in server.toml to another database"
        )
        raise DatabaseForeignError(message)


@functools.cache
def _first_columns() -> Mapping[str, frozenset[str]]:
    """Return tables and columns of the first revision, by running its file on a database in memory."""
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        command.upgrade(_config(connection, None), FIRST)
        inspector = sa.inspect(connection)
        found = {
            table: frozenset(column["name"] for column in inspector.get_columns(table))
            for table in inspector.get_table_names()
            if table != _VERSION_TABLE
        }
    engine.dispose()
    return found


@functools.cache
def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(None, None))


def _config(connection: sa.Connection | None, metadata: sa.MetaData | None) -> Config:
    config = Config()
    for name, folder in (("script_location", _MIGRATIONS), ("version_locations", _MIGRATIONS / "versions")):
        config.set_main_option(name, str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.attributes["connection"] = connection
    config.attributes["metadata"] = metadata
    return config


_UNORDERED_TEXTS = sa.text(
    "SELECT table_name, column_name, data_type, character_maximum_length FROM information_schema.columns "
    "WHERE table_schema = current_schema() AND data_type IN ('character varying', 'text') "
    "AND collation_name IS DISTINCT FROM 'C' ORDER BY table_name, ordinal_position"
)
_NARROW_IDS = sa.text(
    "SELECT table_name FROM information_schema.columns WHERE table_schema = current_schema() "
    "AND column_name = 'id' AND data_type = 'integer' ORDER BY table_name"
)


def _suit_postgres(connection: sa.Connection) -> None:
    """Give PostgreSQL what SQLite has by itself: texts in the order of code points, and ids of 64 bits.

    PostgreSQL sorts texts as the language of the database does, which differs between hosts and changes with updates
    of the system; and 2^31 windows are those of 100,000 devices in two and a half years. Changes only what is not so.
    """
    if connection.dialect.name != "postgresql":
        return
    quoted = connection.dialect.identifier_preparer.quote
    changes: dict[str, list[str]] = {}
    for table, column, kind, length in connection.execute(_UNORDERED_TEXTS):
        sized = f"varchar({length})" if length else kind
        changes.setdefault(table, []).append(f'ALTER COLUMN {quoted(column)} TYPE {sized} COLLATE "C"')
    for (table,) in connection.execute(_NARROW_IDS):
        changes.setdefault(table, []).append("ALTER COLUMN id TYPE bigint")
        connection.exec_driver_sql(f"ALTER SEQUENCE IF EXISTS {quoted(f'{table}_id_seq')} AS bigint")
    for table, of_table in changes.items():
        connection.exec_driver_sql(f"ALTER TABLE {quoted(table)} {', '.join(of_table)}")


@contextmanager
def _alone(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection in an exclusive transaction that covers schema changes."""
    if engine.dialect.name != "sqlite":
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))
            yield connection
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:  # the driver begins nothing
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        finally:
            connection.exec_driver_sql("PRAGMA foreign_keys=ON")
