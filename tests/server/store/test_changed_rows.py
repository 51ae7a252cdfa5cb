"""Which rows of a table changed since the last look, on every kind of database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from server.store.database import Database, open_database
from server.store.fleet import DEVICES, touch_devices, update_device
from server.store.lists.changed_rows import ChangedRows

ROW = {"site": "berlin", "attributes": {}, "password_hash": "", "enrolled_ms": 0}


@pytest.fixture
def database(empty_url: str) -> Iterator[Database]:
    """A database with three devices."""
    found = open_database(empty_url)
    with found.begin() as connection:
        connection.execute(DEVICES.insert(), [{**ROW, "device": name} for name in ("a", "b", "c")])
    yield found
    found.close()


def changed(database: Database, changes: ChangedRows) -> list[str]:
    """Return the devices that a look finds."""
    with database.begin() as connection:
        return sorted(row["device"] for row in changes.rows(connection))


def test_the_first_look_finds_all_and_the_next_what_changed(database: Database) -> None:
    """By whichever statement: of one row, of several, of a new one."""
    changes = ChangedRows(table=DEVICES)
    assert changed(database, changes) == ["a", "b", "c"]
    assert changed(database, changes) == []
    with database.begin() as connection:
        update_device(connection, "b", {"state": "ready"})
    assert changed(database, changes) == ["b"]
    with database.begin() as connection:
        touch_devices(connection, ["a", "c"], 5)
        connection.execute(DEVICES.insert(), {**ROW, "device": "d"})
    assert changed(database, changes) == ["a", "c", "d"]
    assert changed(database, changes) == []


def test_a_change_that_was_passed_over_is_found(database: Database) -> None:
    """Another connection drew a lower number and ended later: its row is below what the last look had seen."""
    changes = ChangedRows(table=DEVICES)
    changed(database, changes)
    with database.begin() as connection:
        connection.execute(DEVICES.update().where(DEVICES.c.device == "b").values(change=9))
    assert changed(database, changes) == ["b"]
    with database.begin() as connection:
        connection.execute(DEVICES.update().where(DEVICES.c.device == "c").values(change=8))
    assert changed(database, changes) == ["c"]


def test_what_is_rolled_back_is_no_change(database: Database) -> None:
    """The number is part of the transaction."""
    changes = ChangedRows(table=DEVICES)
    changed(database, changes)
    with database.engine.connect() as connection:
        update_device(connection, "b", {"state": "ready"})
        connection.rollback()
    assert changed(database, changes) == []
