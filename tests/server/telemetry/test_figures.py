"""Figures over time that devices sent."""

from collections.abc import Mapping
from typing import Any

import pytest

from server.store.database import Database, open_database
from server.store.monitoring.ingest import insert_batches
from server.telemetry.figures import BATCHES, POINTS, DeviceFigures, MeasuredLine, TimeSpan, device_figures

NOW_MS = 1_700_000_000_000
MINUTE_MS = 60_000


@pytest.fixture
def database(store_url: str) -> Database:
    """Return an empty store of each kind."""
    return open_database(store_url)


def send(database: Database, stream: str, at_ms: int, *rows: Mapping[str, Any]) -> None:
    """Store a batch."""
    batch = {"device": "d", "stream": stream, "t0_ms": at_ms, "n": len(rows), "rows": list(rows)}
    with database.begin() as connection:
        insert_batches(connection, [batch | {"received_ms": at_ms + 10 * MINUTE_MS}])


def line(found: DeviceFigures, title: str, place: int = 0) -> MeasuredLine:
    """Return one line of a figure."""
    return next(one for one in found.figures if one.title == title).lines[place]


def test_a_device_that_sent_nothing_has_no_lines(database: Database) -> None:
    """Nothing is drawn, and the page can say that there never was anything."""
    found = device_figures(database, "d", TimeSpan.DAY, NOW_MS)
    assert (found.batches, found.newest_ms) == (0, 0)
    assert all(not line.parts for figure in found.figures for line in figure.lines)


def test_zero_of_a_figure_that_a_machine_lacks_is_no_value(database: Database) -> None:
    """A device without a thermal zone sends 0 degrees; an idle processor really uses 0."""
    send(database, "hw", NOW_MS - MINUTE_MS, {"temperature_celsius": 0.0, "cpu_ratio": 0.0, "rss_bytes": 2**20})
    found = device_figures(database, "d", TimeSpan.DAY, NOW_MS)
    assert line(found, "Temperature").parts == ()
    assert [value for _, value in line(found, "Processor").points] == [0.0]
    assert [value for _, value in line(found, "Memory of the agent").points] == [1.0]


def test_frost_is_a_temperature(database: Database) -> None:
    """Only a temperature may be below 0."""
    send(database, "hw", NOW_MS - MINUTE_MS, {"temperature_celsius": -8.5, "disk_free_bytes": -1})
    found = device_figures(database, "d", TimeSpan.DAY, NOW_MS)
    assert [value for _, value in line(found, "Temperature").points] == [-8.5]
    assert line(found, "Free on its disk").parts == ()


def test_a_time_without_reports_breaks_the_line(database: Database) -> None:
    """Two hours of minutes, five hours of nothing, one hour of minutes: two parts."""
    for minute in [*range(480, 360, -1), *range(60, 0, -1)]:
        at_ms = NOW_MS - minute * MINUTE_MS
        send(database, "infer", at_ms, {"at_ms": at_ms, "n": 60, "p50_ms": 11})
    parts = line(device_figures(database, "d", TimeSpan.DAY, NOW_MS), "Latency of the model").parts
    assert [len(part) for part in parts] == [10, 5]


def test_a_device_that_reports_seldom_has_a_line_without_gaps(database: Database) -> None:
    """One row in two hours is its rhythm."""
    for hour in range(22, 0, -2):
        send(database, "infer", NOW_MS - hour * 60 * MINUTE_MS, {"n": 60})
    assert len(line(device_figures(database, "d", TimeSpan.DAY, NOW_MS), "Inferences a report").parts) == 1


def test_what_a_device_may_not_send_is_left_out(database: Database) -> None:
    """Text, truth values, infinity, giants, rows that are none, and a time of another century."""
    send(
        database, "infer", NOW_MS - MINUTE_MS, {"n": "60"}, {"n": True}, {"n": 10**400}, 7, {"at_ms": 4, "n": 5}
    )  # fmt: skip
    (point,) = line(device_figures(database, "d", TimeSpan.DAY, NOW_MS), "Inferences a report").points
    assert point == (NOW_MS - MINUTE_MS, 5.0)


def test_a_fortnight_is_bounded(database: Database) -> None:
    """Of many batches some are read, evenly, and a line has few points."""
    rows = [
        {"device": "d", "stream": "hw", "t0_ms": NOW_MS - minute * MINUTE_MS, "n": 1, "rows": [{"cpu_ratio": 0.5}],
         "received_ms": NOW_MS}
        for minute in range(14 * 24 * 60 - 1, 0, -20)
    ]  # fmt: skip
    with database.begin() as connection:
        insert_batches(connection, rows)
    found = device_figures(database, "d", TimeSpan.FORTNIGHT, NOW_MS)
    assert (found.batches, found.read <= BATCHES) == (len(rows), True)
    points = line(found, "Processor").points
    assert len(points) <= POINTS + 1
    assert len(line(found, "Processor").parts) == 1


def test_the_newest_batch_is_known_beyond_the_span(database: Database) -> None:
    """The page says from when it is."""
    send(database, "infer", NOW_MS - 9 * TimeSpan.DAY.length_ms, {"n": 1})
    found = device_figures(database, "d", TimeSpan.DAY, NOW_MS)
    assert (found.batches, found.newest_ms) == (0, NOW_MS - 9 * TimeSpan.DAY.length_ms)
