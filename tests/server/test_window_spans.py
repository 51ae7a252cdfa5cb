"""Windows become days, and days months: every count stays exact, readers with a cursor notice nothing."""

from __future__ import annotations

import datetime as dt
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import sqlalchemy as sa

from server.app.retention import Housekeeping
from server.app.server import ServerApp
from server.ingest.packed_counts import pack
from server.ingest.window_spans import Resolution, WindowSpans, month_of
from server.ingest.windows import Windows
from server.store.database import Database, open_database
from server.store.monitoring import spans as store
from server.store.monitoring.evidence import VERDICTS
from server.store.monitoring.spans import PINNED, SPANS, insert_pins
from server.store.monitoring.windows import WINDOWS, insert_windows
from wire.memory_broker import MemoryBroker, MemoryTransport

if TYPE_CHECKING:
    from server.app.state_directory import StateDirectory
    from tests.server.conftest import FakeClock, MemoryFleet

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
TOTAL = 2 * 17 + 3
START_MS = int(dt.datetime(2026, 1, 30, tzinfo=dt.UTC).timestamp()) * 1000


@pytest.fixture
def database(store_url: str) -> Iterator[Database]:
    """An empty database."""
    opened = open_database(store_url)
    yield opened
    opened.close()


def _spans(database: Database, portion: int = 4_000) -> WindowSpans:
    return WindowSpans(database=database, hourly_ms=35 * DAY_MS, daily_ms=400 * DAY_MS, portion=portion)


def _report(database: Database, hours: int, devices: int = 2, *, from_ms: int = START_MS, late_ms: int = 0) -> None:
    """Store hourly windows of ``devices``; the counts of each are its hour in the first bin, and ones."""
    rows: list[dict[str, object]] = []
    for hour in range(hours):
        counts = np.ones(TOTAL, np.uint32)
        counts[0] = hour
        rows += [
            {"device": f"d{i}", "site": "s", "start_ms": from_ms + hour * HOUR_MS, "len_ms": HOUR_MS, "context": 0,
             "artifact": "cd" * 16, "ref_id": "ef" * 16, "streams": 2, "classes": 3, "confidence_bins": 1, "n": 60,
             "reports": 1, "values": pack(counts.tobytes()), "received_ms": from_ms + (hour + 1) * HOUR_MS + late_ms}
            for i in range(devices)
        ]  # fmt: skip
    with database.begin() as connection:
        insert_windows(connection, rows)


def _sweep(spans: WindowSpans, now_ms: int, turns: int = 50) -> None:
    for _ in range(turns):
        spans.turn(now_ms)


def _sums(database: Database) -> tuple[int, int, int]:
    """Return the inferences, the windows and the sum of first counts of everything that is stored of d0."""
    found = _spans(database).history("d0", 0, 1 << 60)
    return sum(one.n for one in found), sum(one.windows for one in found), sum(int(one.values[0]) for one in found)


def _count(database: Database, table: sa.Table) -> int:
    with database.begin() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


@pytest.mark.stores
def test_days_and_months_have_the_exact_counts_of_their_hours(database: Database) -> None:
    """Two days in January, three in February; the last hours stay hours."""
    _report(database, hours=5 * 24)
    before = _sums(database)
    _sweep(_spans(database), START_MS + 39 * DAY_MS)
    found = _spans(database).history("d0", 0, 1 << 60)
    assert [one.resolution.value for one in found] == ["day"] * 4 + ["hour"] * 24
    assert (found[0].start_ms, found[0].len_ms, found[0].n, found[0].windows) == (START_MS, DAY_MS, 24 * 60, 24)
    assert found[0].values[:2].tolist() == [sum(range(24)), 24]
    _sweep(_spans(database), START_MS + 500 * DAY_MS)
    months = _spans(database).history("d0", 0, 1 << 60)
    assert [(one.start_ms, one.len_ms // DAY_MS, one.windows) for one in months] == [
        (START_MS - 29 * DAY_MS, 31, 48), (START_MS + 2 * DAY_MS, 28, 72),
    ]  # fmt: skip
    assert {one.resolution for one in months} == {Resolution.MONTH}
    assert _sums(database) == before == (5 * 24 * 60, 120, sum(range(120)))


def test_months_are_deleted_after_years(database: Database) -> None:
    """Both sides of the bound: the month of the bound stays."""
    _report(database, hours=5 * 24)
    _sweep(_spans(database), START_MS + 3_661 * DAY_MS)
    assert [one.windows for one in _spans(database).history("d0", 0, 1 << 60)] == [48, 72]
    _sweep(_spans(database), START_MS + 3_663 * DAY_MS)
    assert [one.windows for one in _spans(database).history("d0", 0, 1 << 60)] == [72]


@pytest.mark.parametrize(("days", "kept"), [(1, 31), (31, 31), (40, 40)])
def test_windows_stay_hours_while_drift_detection_may_read_them(
    state: StateDirectory, clock: FakeClock, days: int, kept: int
) -> None:
    """Whatever the setting: its horizon is 30 days."""
    state.config.write_text(f"[retention]\nhourly_days = {days}\n", encoding="utf-8")
    transport = MemoryTransport(broker=MemoryBroker(), client_id="server")
    app = ServerApp.open(state.path, transport=transport, clock=clock, pages=False)
    try:
        assert app.parts.spans.hourly_ms == kept * DAY_MS
    finally:
        app.stop()


def test_nothing_young_is_merged(database: Database) -> None:
    """Both sides of the bound; a window that arrived late stays an hour as long after that as any other."""
    _report(database, hours=24)
    _sweep(_spans(database), START_MS + 36 * DAY_MS - 1)
    assert _count(database, SPANS) == 0
    _sweep(_spans(database), START_MS + 36 * DAY_MS)
    assert _count(database, SPANS) == 2
    _report(database, hours=2, from_ms=START_MS - DAY_MS, late_ms=40 * DAY_MS)
    _sweep(_spans(database), START_MS + 60 * DAY_MS)
    assert _count(database, WINDOWS) == 4
    _sweep(_spans(database), START_MS + 76 * DAY_MS)
    assert _count(database, WINDOWS) == 0


@pytest.mark.stores
def test_a_late_part_is_added_to_the_month_that_was_merged(database: Database) -> None:
    """A device that was away for two years: its window is in the month once it is old."""
    _report(database, hours=24)
    _sweep(_spans(database), START_MS + 500 * DAY_MS)
    _report(database, hours=3, from_ms=START_MS + DAY_MS, late_ms=600 * DAY_MS)
    _sweep(_spans(database), START_MS + 1_100 * DAY_MS)
    (month,) = _spans(database).history("d0", 0, 1 << 60)
    assert (month.windows, month.n, int(month.values[0])) == (27, 27 * 60, sum(range(24)) + 3)


def test_a_backlog_is_merged_in_portions_and_to_the_same_sums(database: Database) -> None:
    """At most so many windows a transaction, also when a portion ends within a day."""
    _report(database, hours=50, devices=3)
    before, spans = _sums(database), _spans(database, portion=7)
    left = _count(database, WINDOWS)
    for _ in range(40):
        spans.turn(START_MS + 50 * DAY_MS)
        now = _count(database, WINDOWS)
        assert left - now <= 7
        assert _sums(database) == before
        left = now
    assert left == 0


def test_a_kill_between_the_steps_loses_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sums and the deletion of the parts are one transaction."""
    _report(database, hours=48)
    before = _sums(database)
    for name in ("insert_spans", "delete_spans", "insert_pinned"):
        with monkeypatch.context() as patched:

            def killed(*_: object) -> None:
                raise KeyboardInterrupt

            patched.setattr(store, name, killed)
            with pytest.raises(KeyboardInterrupt):
                _spans(database).turn(START_MS + 50 * DAY_MS)
        assert _sums(database) == before
        assert _count(database, SPANS) == 0
    _sweep(_spans(database), START_MS + 50 * DAY_MS)
    assert _sums(database) == before


@pytest.mark.parametrize("statement", range(1, 9))
def test_a_killed_process_loses_nothing(tmp_path: Path, statement: int) -> None:
    """SIGKILL before each of six writing statements of a portion and its commit, and after: no window is lost."""
    url = f"sqlite:///{tmp_path / 'fleet.db'}"
    database = open_database(url)
    _report(database, hours=48)
    with database.begin() as connection:
        insert_pins(connection, [{"verdict": 1, "device": "d1", "from_ms": START_MS, "until_ms": START_MS + HOUR_MS}])
    before = _sums(database)
    database.close()
    child = os.fork()
    if not child:
        _sweep_until_killed(url, statement)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]) == (statement < 8)
    database = open_database(url)
    assert _sums(database) == before
    _sweep(_spans(database), START_MS + 500 * DAY_MS)
    assert (_sums(database), _count(database, PINNED)) == (before, 1)
    database.close()


def _sweep_until_killed(url: str, statement: int) -> None:
    """Merge in this process, which kills itself before its n-th writing statement or commit, and never returns."""
    database, seen = open_database(url), [0]

    def count(*arguments: object) -> None:
        writes = len(arguments) == 1 or str(arguments[2]).startswith(("INSERT", "DELETE"))
        seen[0] += writes
        if writes and seen[0] == statement:
            os.kill(os.getpid(), signal.SIGKILL)

    sa.event.listen(database.engine, "before_cursor_execute", count)
    sa.event.listen(database.engine, "commit", count)
    try:
        _spans(database).turn(START_MS + 500 * DAY_MS)
    finally:
        os._exit(0)  # never into the tests of the parent


def test_a_portion_asks_no_more_of_many_devices_than_of_one(database: Database) -> None:
    """Where nothing is old enough, which is each portion but a few of a day."""
    statements: list[object] = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))

    def asked() -> int:
        statements.clear()
        _spans(database).turn(START_MS + HOUR_MS)
        return len(statements)

    _report(database, hours=1, devices=1)
    of_one = asked()
    _report(database, hours=1, devices=9, from_ms=START_MS + HOUR_MS)
    assert asked() == of_one > 0


def test_a_reader_with_a_cursor_never_sees_a_merged_window(database: Database) -> None:
    """Ids grow: merging gives none."""
    _report(database, hours=48)
    windows = Windows(database)
    cursor = windows.cursor()
    _sweep(_spans(database), START_MS + 500 * DAY_MS)
    assert windows.since(cursor) == []
    assert windows.arrived(cursor, 0) == (cursor, None)
    assert windows.between(0, 1 << 60) == []
    _report(database, hours=1, from_ms=START_MS + 500 * DAY_MS)
    assert [one.id for one in windows.since(cursor)] == [cursor + 1, cursor + 2]


def test_a_damaged_window_stops_no_other(database: Database) -> None:
    """It is left out of its day."""
    _report(database, hours=24, devices=1)
    with database.begin() as connection:
        connection.execute(WINDOWS.update().where(WINDOWS.c.start_ms == START_MS).values({"values": b"\0" * 9}))
    _sweep(_spans(database), START_MS + 50 * DAY_MS)
    (day,) = _spans(database).history("d0", 0, 1 << 60)
    assert (day.windows, day.n) == (23, 23 * 60)


@pytest.mark.stores
def test_pinned_windows_stay_as_long_as_their_verdict(database: Database) -> None:
    """Each whole, beside the day in which it counts; without the verdict they go, and so does the pin."""
    _report(database, hours=24)
    with database.begin() as connection:
        verdict = {"id": 7, "key": "k", "kind": "device_local", "first_window_ms": 0, "last_window_ms": 0, "windows": 1,
                   "opened_ms": 0, "closed_ms": 1, "devices": ["d1"], "attributes": {}, "cause": "", "action": "",
                   "detail": "", "release": "", "model": ""}  # fmt: skip
        connection.execute(VERDICTS.insert(), verdict)
        pin = {"verdict": 7, "device": "d1", "from_ms": START_MS + 2 * HOUR_MS, "until_ms": START_MS + 5 * HOUR_MS}
        insert_pins(connection, [pin])
        before = store.pinned_between(connection, "d1", START_MS + 2 * HOUR_MS, START_MS + 5 * HOUR_MS)
    now_ms = START_MS + 100 * DAY_MS
    _sweep(_spans(database), now_ms)
    cleaner = Housekeeping(database=database, retention_days=90.0)
    cleaner.turn(now_ms)
    with database.begin() as connection:
        after = store.pinned_between(connection, "d1", 0, 1 << 60)
    assert [dict(row) for row in after] == [dict(row) for row in before]
    assert len(after) == 3
    assert _sums(database)[1] == 24
    Housekeeping(database=database, retention_days=90.0, governance_days=50.0).turn(now_ms)
    assert (_count(database, VERDICTS), _count(database, PINNED)) == (0, 0)


def test_the_history_of_a_device_says_its_resolution(fleet: MemoryFleet) -> None:
    """By the interface: a day, then the windows of today; counts only where they are asked for."""
    device = fleet.enrol()
    device.report(0)
    fleet.turn()
    fleet.clock.now_ms += 40 * DAY_MS
    device.report(1, start_ms=40 * DAY_MS)
    fleet.turn()
    spans = fleet.client().get("/api/devices/cam-1/history").json()["spans"]
    assert [(span["resolution"], span["n"], span["values"]) for span in spans] == [("day", 5, None), ("hour", 5, None)]
    since_ms = spans[1]["start_ms"]
    (span,) = fleet.client().get(f"/api/devices/cam-1/history?values=true&since_ms={since_ms}").json()["spans"]
    assert sum(span["values"]) > 0
    assert fleet.client().get("/api/devices/nobody/history").status_code == 404
    assert fleet.client(None).get("/api/devices/cam-1/history").status_code == 401


@pytest.mark.parametrize(("day", "first", "days"), [
    ((2026, 1, 1), (2026, 1, 1), 31), ((2028, 2, 29), (2028, 2, 1), 29), ((2026, 12, 31), (2026, 12, 1), 31),
    ((1969, 12, 31), (1969, 12, 1), 31),
])  # fmt: skip
def test_months_are_those_of_the_calendar(day: tuple[int, int, int], first: tuple[int, int, int], days: int) -> None:
    """In UTC, leap years and times before 1970 included."""
    to_ms: Callable[[tuple[int, int, int]], int] = lambda at: int(dt.datetime(*at, tzinfo=dt.UTC).timestamp()) * 1000  # noqa: E731
    assert month_of(to_ms(day) + 5) == (to_ms(first), days * DAY_MS)
