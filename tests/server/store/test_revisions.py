"""A database of any earlier revision is migrated completely and without loss, or refused in one sentence."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from server.errors import DatabaseForeignError, DatabaseNewerError, DatabaseOutdatedError
from server.rollout.ledger import RolloutLedger
from server.store import revisions
from server.store.database import open_database
from server.store.events import latest_events
from server.store.revisions import FIRST, standing_of, upgrade

from .conftest import Rows, load_dump, rows_of

EngineAt = Callable[[str], sa.Engine]


def shape_of(engine: sa.Engine) -> dict[str, object]:
    """Return the comparable facts of each table: columns, keys, indexes, and whether SQLite reuses ids."""
    inspector, found = sa.inspect(engine), {}
    for table in inspector.get_table_names():
        columns = {c["name"]: (str(c["type"]), c["nullable"], c["default"]) for c in inspector.get_columns(table)}
        indexes = sorted((i["name"], tuple(i["column_names"])) for i in inspector.get_indexes(table))
        unique = sorted(tuple(u["column_names"]) for u in inspector.get_unique_constraints(table))
        parents = [(key["constrained_columns"], key["referred_table"]) for key in inspector.get_foreign_keys(table)]
        key = inspector.get_pk_constraint(table)["constrained_columns"]
        found[table] = (columns, indexes, unique, parents, key)
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            texts = dict(connection.execute(sa.text("SELECT name, sql FROM sqlite_master WHERE type = 'table'")).all())
        found |= {f"{table} grows": "AUTOINCREMENT" in text for table, text in texts.items()}
    return found


def _compared(engine: sa.Engine) -> dict[str, bool]:
    # Alembic takes SQLite's default '' for none; there the shape says it
    return {"compare_server_default": engine.dialect.name != "sqlite"}


def test_there_is_one_newest_revision() -> None:
    """Two revisions after the same one would leave it open which a database gets."""
    assert len(revisions._script().get_heads()) == 1


@pytest.mark.slow
def test_every_step_taken_makes_the_tables_that_the_code_declares(
    empty_url: str, engine_at: EngineAt, tables: sa.MetaData
) -> None:
    """A migrated database is the one that a new server makes."""
    engine = engine_at(empty_url)
    upgrade(engine, tables)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=_compared(engine))
        assert compare_metadata(context, tables) == []


def test_a_migrated_database_has_the_shape_of_a_new_one(
    old_url: str, tmp_path: Path, engine_at: EngineAt, tables: sa.MetaData
) -> None:
    """Also facts that Alembic does not compare: columns in any order, keys, and ids that are never reused."""
    engine = engine_at(old_url)
    upgrade(engine, tables)
    if engine.dialect.name == "sqlite":
        open_database(f"sqlite:///{tmp_path / 'new.db'}").close()
        assert shape_of(engine) == shape_of(engine_at(f"sqlite:///{tmp_path / 'new.db'}"))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=_compared(engine))
        assert compare_metadata(context, tables) == []


def test_the_first_revision_is_what_42f48ee_made(tmp_path: Path, engine_at: EngineAt) -> None:
    """The dump was made by that commit's own code."""
    made = shape_of(engine_at(f"sqlite:///{load_dump(tmp_path / 'old.db')}"))
    engine = engine_at(f"sqlite:///{tmp_path / 'first.db'}")
    with revisions._alone(engine) as connection:
        revisions.command.upgrade(revisions._config(connection, None), FIRST)
    assert {name: shape for name, shape in shape_of(engine).items() if "alembic" not in name} == made


RENAMED = {"rollout_members": {"air_bytes": "bundle_bytes"}}
"""Columns whose values moved to one that says what they are; another figure has the old name now."""


def assert_kept(before: Rows, after: Rows) -> None:
    """Each row has the values that it had, in the columns that it had; new columns may have come."""
    for table, rows in before.items():
        columns = {name: RENAMED.get(table, {}).get(name, name) for name in rows[0]}
        kept = sorted(({name: row[now] for name, now in columns.items()} for row in after[table]), key=repr)
        assert [sorted(row.items()) for row in kept] == [sorted(row.items()) for row in rows], table


def test_a_database_of_42f48ee_comes_to_today_without_loss(
    old_url: str, engine_at: EngineAt, tables: sa.MetaData
) -> None:
    """Every table has rows in it, and every one is compared."""
    engine = engine_at(old_url)
    before = rows_of(engine)
    assert all(before.values())
    assert upgrade(engine, tables).versioned is False
    assert standing_of(engine).is_current
    assert_kept(before, rows_of(engine))


def test_todays_code_reads_what_was_migrated(old_url: str, engine_at: EngineAt, tables: sa.MetaData) -> None:
    """The rows are not only there: the services make sense of them."""
    engine = engine_at(old_url)
    upgrade(engine, tables)
    database = open_database(old_url)
    (rollout,) = RolloutLedger(database).all()
    assert rollout.release == "digits-2"
    assert [(one.air_bytes, one.bundle_bytes) for one in rollout.members] == [(0, 70_000)], "it never counted the air"
    with database.begin() as connection:
        assert [row["code"] for row in latest_events(connection, 9, None)] == ["committed", "staged"]
    database.close()


def test_an_older_database_is_refused_with_the_command_that_migrates_it(old_url: str) -> None:
    """Nothing is migrated silently."""
    with pytest.raises(DatabaseOutdatedError, match="fleet-server migrate /srv/fleet") as refused:
        open_database(old_url, "/srv/fleet")
    assert "\n" not in str(refused.value)


def test_a_newer_database_is_refused_in_one_sentence(empty_url: str, engine_at: EngineAt, tables: sa.MetaData) -> None:
    """Its revision is not known here; neither opening nor migrating touches it."""
    open_database(empty_url).close()
    engine = engine_at(empty_url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    for use in (lambda: open_database(empty_url), lambda: upgrade(engine, tables)):
        with pytest.raises(DatabaseNewerError, match="got 9999, of a newer tinyfleet: install that version"):
            use()


def test_a_database_from_before_42f48ee_is_refused_by_what_it_lacks(empty_url: str, engine_at: EngineAt) -> None:
    """Its revision can't be determined."""
    with engine_at(empty_url).begin() as connection:
        connection.execute(sa.text("CREATE TABLE devices (device VARCHAR(63) PRIMARY KEY)"))
    with pytest.raises(DatabaseForeignError, match=r"one without .*devices\.attributes.* and \d+ more"):
        open_database(empty_url)


def test_an_empty_database_gets_todays_tables_once(empty_url: str, engine_at: EngineAt) -> None:
    """A new server needs no migration, and a second opening changes nothing."""
    open_database(empty_url).close()
    before = shape_of(engine_at(empty_url))
    open_database(empty_url).close()
    assert standing_of(engine_at(empty_url)).is_current
    assert shape_of(engine_at(empty_url)) == before


def test_a_row_without_its_parent_stops_a_migration_and_changes_nothing(
    tmp_path: Path, engine_at: EngineAt, tables: sa.MetaData
) -> None:
    """Foreign keys are off while tables are copied, so they are checked before the commit."""
    file = load_dump(tmp_path / "fleet.db")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE rollout_members SET rollout = 'gone'")
        connection.commit()
    engine = engine_at(f"sqlite:///{file}")
    with pytest.raises(DatabaseForeignError, match="rollout_members row 1 to rollouts"):
        upgrade(engine, tables)
    assert standing_of(engine).versioned is False


_KILLED_BEFORE_COMMIT = """
import os, signal, sys
import sqlalchemy as sa
from server.store.database import connect, declared_tables
from server.store import revisions
tables, engine = declared_tables(), connect(sys.argv[1])
@sa.event.listens_for(engine, "before_cursor_execute")
def die(connection, cursor, statement, *_):
    global left
    left = left - 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
left = int(sys.argv[2])
revisions.upgrade(engine, tables)
print(int(sys.argv[2]) - left)
"""


@pytest.mark.slow
def test_a_killed_migration_leaves_the_old_database_or_the_new_one(tmp_path: Path, engine_at: EngineAt) -> None:
    """Killed before any of its statements, the schema's among them; then it migrates as if nothing had happened."""

    def migrate(file: Path, statement: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", _KILLED_BEFORE_COMMIT, f"sqlite:///{file}", str(statement)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    before = rows_of(engine_at(f"sqlite:///{load_dump(tmp_path / 'before.db')}"))
    statements = int(migrate(load_dump(tmp_path / "count.db"), 10**6).stdout)
    for statement in range(statements, 0, -max(1, statements // 4)):
        file = load_dump(tmp_path / f"{statement}.db")
        assert migrate(file, statement).returncode == -signal.SIGKILL
        engine = engine_at(f"sqlite:///{file}")
        assert (rows_of(engine), standing_of(engine).versioned) == (before, False) or standing_of(engine).is_current
        assert migrate(file, 10**6).returncode == 0
        assert_kept(before, rows_of(engine))


@pytest.mark.slow
def test_two_processes_make_the_tables_once(empty_url: str) -> None:
    """The second waits for the first and finds them made."""
    code = f"from server.store.database import open_database; open_database({empty_url!r})"
    both = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [(one.wait(60), one.communicate()[1]) for one in both] == [(0, ""), (0, "")]
    open_database(empty_url).close()
