"""Databases for tests of the store: SQLite always, PostgreSQL where Debian's is installed; one of 42f48ee on both."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command

from server.store import revisions
from server.store.database import connect, declared_tables

DUMP = Path(__file__).parent / "fixtures" / "database_of_42f48ee.sql"
Rows = Mapping[str, list[dict[str, object]]]


def load_dump(file: Path) -> Path:
    """Write the database of commit 42f48ee to ``file`` and return it."""
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(DUMP.read_text(encoding="utf-8"))
    return file


def rows_of(engine: sa.Engine) -> Rows:
    """Return every row of every table but Alembic's, as the database has its columns now."""
    found = sa.MetaData()
    found.reflect(engine)
    with engine.connect() as connection:
        return {
            table.name: sorted((dict(row) for row in connection.execute(table.select()).mappings()), key=repr)
            for table in found.sorted_tables
            if table.name != "alembic_version"
        }


def _programs() -> Path | None:
    found = shutil.which("pg_ctl")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return folders[-1] if folders else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a private PostgreSQL on a socket in a folder of its own; PostgreSQL refuses to run as root."""
    programs = _programs()
    if programs is None or importlib.util.find_spec("psycopg") is None:
        pytest.skip("needs PostgreSQL (Debian: postgresql) and psycopg (tinyfleet[postgres])")
    account = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="tinyfleet-pg-"))
    if account:
        os.chown(folder, pwd.getpwnam(account).pw_uid, -1)

    def run(name: str, *arguments: str) -> None:
        command = [str(programs / name), "-D", str(folder / "data"), *arguments]
        subprocess.run(command, check=True, user=account, cwd=folder, stdout=subprocess.DEVNULL, timeout=60)

    run("initdb", "-A", "trust", "-U", "postgres", "--no-sync")
    try:
        run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", f"-c listen_addresses='' -k {folder}", "start")
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        run("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'fleet.db'}"
    url: str = request.getfixturevalue("postgres")
    engine = connect(url)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()
    return url


@pytest.fixture
def old_url(empty_url: str, tmp_path: Path) -> str:
    """The URL of the database of 42f48ee, with its rows and without a revision, of each kind."""
    if empty_url.startswith("sqlite"):
        load_dump(tmp_path / "fleet.db")
        return empty_url
    source, target = connect(f"sqlite:///{load_dump(tmp_path / 'source.db')}"), connect(empty_url)
    with revisions._alone(target) as connection:
        command.upgrade(revisions._config(connection, None), revisions.FIRST)
        tables = sa.MetaData()
        tables.reflect(connection)
        tables.tables["alembic_version"].drop(connection)
        with source.connect() as old:
            for table in tables.sorted_tables:
                if table.name == "alembic_version":
                    continue
                columns = sa.MetaData()
                rows = old.execute(sa.Table(table.name, columns, autoload_with=source).select()).mappings().all()
                connection.execute(table.insert(), [dict(row) for row in rows])
    target.dispose()
    return empty_url


@pytest.fixture
def engine_at() -> Iterator[Callable[[str], sa.Engine]]:
    """A function that returns an engine for a URL; all are closed at the end."""
    made: list[sa.Engine] = []

    def engine(url: str) -> sa.Engine:
        made.append(connect(url))
        return made[-1]

    yield engine
    for one in made:
        one.dispose()


@pytest.fixture
def tables() -> sa.MetaData:
    """The tables of every domain, as this version declares them."""
    return declared_tables()
