"""A device's clock in 1970, or more than a year ahead, neither stops nor steers anything on the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from server.store.events import latest_events
from server.store.monitoring.ingest import latest_batches
from wire.messages import (
    Batch,
    DeviceState,
    Event,
    InstalledRelease,
    Reported,
    Sample,
    Severity,
    State,
    Stream,
)  # fmt: skip

if TYPE_CHECKING:
    from conftest import FakeDevice, MemoryFleet

BOOT = "ab" * 8
DAY_MS = 86_400_000
CLOCKS = {"1970": -1_800_000_000_000 + 7_000, "ahead": 400 * DAY_MS, "behind": -20 * DAY_MS}
pytestmark = pytest.mark.parametrize("off_ms", CLOCKS.values(), ids=CLOCKS)


def speak(device: FakeDevice, fleet: MemoryFleet, off_ms: int, seq: int, release: str = "m-1") -> None:
    """Send one of everything, as an agent does whose clock is off by ``off_ms``."""
    now_ms = fleet.clock() + off_ms
    device.say("state", State(state=DeviceState.READY, at_ms=now_ms, boot=BOOT))
    device.say("reported", Reported(at_ms=now_ms, boot=BOOT, current=InstalledRelease(release, "0" * 64)))
    device.report(seq, start_ms=off_ms - 1000 + fleet.clock() - 1_800_000_000_000)
    device.say(
        "tele/hw",
        Batch(stream=Stream.HW, boot=BOOT, seq=seq, oldest_seq=0, t0_ms=now_ms - 1000, n=1, rows=({"rss_bytes": seq},)),
    )
    device.say(
        "event",
        Event(boot=BOOT, seq=seq, oldest_seq=0, at_ms=now_ms, kind="test", code=f"event-{seq}", severity=Severity.INFO),
    )
    fleet.turn()


def test_nothing_is_filed_in_the_future_or_the_far_past(fleet: MemoryFleet, off_ms: int) -> None:
    """Windows, batches, events and history get the time of their arrival; the wrong clock is reported."""
    speak(fleet.enrol(), fleet, off_ms, 0)
    parts, now_ms = fleet.app.parts, fleet.clock()
    (window,) = parts.windows.since(0)
    with parts.database.begin() as connection:
        times = [row["t0_ms"] for row in latest_batches(connection, "cam-1", "hw", 9)]
        times += [row["at_ms"] for row in latest_events(connection, 99, "cam-1")]
    times += [window.start_ms, parts.lineage.history("cam-1")[0].from_ms]
    assert all(now_ms - 10_000 <= at_ms <= now_ms for at_ms in times)
    assert "clock_skew" in fleet.codes()
    assert parts.fleet.device("cam-1").clock_skew_ms == off_ms


def test_what_came_last_is_the_newest_once_the_clock_is_right(fleet: MemoryFleet, off_ms: int) -> None:
    """The wrong clock's rows are not on top for the next 400 days."""
    device = fleet.enrol()
    for seq, skew_ms in enumerate((off_ms, 0)):
        speak(device, fleet, skew_ms, seq, f"m-{seq}")
        fleet.clock.now_ms += 60_000
    with fleet.app.parts.database.begin() as connection:
        (newest,) = latest_batches(connection, "cam-1", "hw", 1)
    assert newest["rows"] == [{"rss_bytes": 1}]
    assert fleet.app.parts.lineage.ran_at("cam-1", fleet.clock()).release == "m-1"
    assert fleet.app.parts.fleet.device("cam-1").clock_skew_ms == 0


def test_rows_live_as_long_as_those_of_others(fleet: MemoryFleet, off_ms: int) -> None:
    """They are kept so long as hours, or for the retention, counted from their arrival."""
    speak(fleet.enrol("cam-2"), fleet, 0, 0)
    speak(fleet.enrol(), fleet, off_ms, 0)
    for days, left in ((34, 2), (2, 0)):
        fleet.clock.now_ms += days * DAY_MS
        fleet.turn()
        assert len(fleet.app.parts.windows.since(0)) == left
    fleet.clock.now_ms += 55 * DAY_MS
    fleet.turn()
    with fleet.app.parts.database.begin() as connection:
        assert latest_batches(connection, "cam-1", "hw", 9) == []


def test_nobody_elses_evidence_is_folded_again(fleet: MemoryFleet, off_ms: int) -> None:
    """A window under a wrong clock reopens no completed slot."""
    honest, device = fleet.enrol("cam-2"), fleet.enrol()
    speak(honest, fleet, 0, 0)
    speak(device, fleet, off_ms, 0)
    before = fleet.app.parts.windows.cursor()
    fleet.clock.now_ms += 30 * 60_000
    speak(honest, fleet, 0, 1)
    speak(device, fleet, off_ms, 1)
    fresh = fleet.app.parts.windows.since(before)
    assert len(fresh) == 2
    assert all(window.start_ms >= fleet.clock() - 10_000 for window in fresh)


def test_a_sample_is_as_old_as_its_arrival(fleet: MemoryFleet, off_ms: int) -> None:
    """Retraining uses samples since a drift began; a wrong clock must not move a sample across that time."""
    kept = []
    fleet.app.parts.ingest.keep_sample = lambda *arrived: kept.append(arrived[1].at_ms)
    device = fleet.enrol()
    device.say("state", State(state=DeviceState.READY, at_ms=fleet.clock() + off_ms, boot=BOOT))
    fleet.turn()
    device.say("tele/sample", Sample(boot=BOOT, seq=0, at_ms=fleet.clock() + off_ms, sha256="a"))
    fleet.turn()
    assert kept == [fleet.clock()]
