"""A failure at every turn does not fill the log: one line a minute, and one when it is over."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from server.errors import DatabaseRefusedError
from server.outages import Outages

if TYPE_CHECKING:
    from conftest import MemoryFleet

LOCKED = DatabaseRefusedError("Expected a database that answers, got: database is locked")


def test_one_line_a_minute_however_many_parts_fail(caplog: pytest.LogCaptureFixture) -> None:
    """Both sides of the minute; another text is logged at once; a known cause has no stack."""
    now_s = [0.0]
    outages = Outages(monotonic=lambda: now_s[0])
    for at_s, part, error, lines in (
        (0.0, "a", LOCKED, 1), (1.0, "b", LOCKED, 1), (59.9, "a", LOCKED, 1), (60.0, "b", LOCKED, 2),
        (61.0, "b", OSError(30, "Read-only file system"), 3),
    ):  # fmt: skip
        now_s[0] = at_s
        outages.failed(part, error)
        assert len(caplog.records) == lines
    assert [record.exc_info for record in caplog.records] == [None] * 3


def test_it_is_over_when_every_part_that_failed_works_again(caplog: pytest.LogCaptureFixture) -> None:
    """The line counts the failures; the next outage is logged at once."""
    outages = Outages(monotonic=lambda: 5.0)
    for part in ("a", "b", "a"):
        outages.failed(part, LOCKED)
    outages.worked("a")
    outages.worked("c")
    assert len(caplog.records) == 1
    outages.worked("b")
    assert caplog.messages[1:] == ["Works again. lasted_s=0 failures=a 2, b 1"]
    outages.failed("a", LOCKED)
    assert len(caplog.records) == 3


def test_a_fault_of_ours_keeps_its_stack(caplog: pytest.LogCaptureFixture) -> None:
    """The stack is needed to find it; the same fault within the minute is not logged."""
    outages = Outages()
    for _ in range(3):
        outages.failed("a", KeyError("x"))
    assert [bool(record.exc_info) for record in caplog.records] == [True]


def test_a_database_that_another_process_locked_is_said_once_and_its_end_too(
    fleet: MemoryFleet, caplog: pytest.LogCaptureFixture
) -> None:
    """Health names the lock and the next step; after it every message is stored, and the server is well."""
    database, device = fleet.app.parts.database, fleet.enrol()
    sa.event.listen(database.engine, "checkout", lambda raw, *_: raw.execute("PRAGMA busy_timeout=0"))
    with closing(sqlite3.connect(fleet.state.path / "fleet.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        device.report(0)
        for _ in range(3):
            fleet.clock.now_ms += 15_000
            fleet.app.parts.ingest.turn(fleet.clock())
            fleet.app._give_turn(fleet.app.parts.vitals)
        document = fleet.client(None).get("/api/health").json()
        assert (document["ok"], "database is locked: another process holds its write lock" in document["text"]) == (
            False, True,
        )  # fmt: skip
        assert len([record for record in caplog.records if record.name == "server.outages"]) == 1
    fleet.clock.now_ms += 15_000
    fleet.turn()
    assert [message.split(".")[0] for message in caplog.messages][-1] == "Works again"
    assert (fleet.client(None).get("/api/health").json()["ok"], device.watermark()) == (True, 0)
