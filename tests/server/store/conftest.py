"""Databases for tests of the store: SQLite always, PostgreSQL where Debian's is installed; one of 42f48ee on both."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command

from scripts.bench.postgres import empty
from server.store import revisions
from server.store.database import connect, declared_tables, open_database

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


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'fleet.db'}"
        return
    url: str = request.getfixturevalue("postgres")
    empty(url)
    yield url
    empty(url)  # other tests find the tables of this version
    open_database(url).close()


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
