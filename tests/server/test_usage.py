"""What a device reports of its days, its spool's losses and its late windows, up to the page and the API."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from server.dashboard.views import losses_text
from server.store.monitoring.windows import LATE_MS
from wire.codec import Json, to_document
from wire.drift_report import encode_report
from wire.messages import Batch, DayUsage, DeviceState, State, Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import FakeDevice, MemoryFleet

    from wire.drift_report import DriftReport

    Report = Callable[..., DriftReport]

BOOT = "ab" * 8
DAY_MS = 86_400_000
USED = DayUsage(
    day="2027-01-15", sent_bytes=5, received_bytes=6, written_bytes=7, dropped={"hw": 3, "answer": 9}, merged=2
)


def say(device: FakeDevice, *usages: Json, seq: int = 0) -> None:
    """Send readings of the machine with these reports."""
    rows = tuple({"rss_bytes": 1, "usage": usage} for usage in usages)
    device.say("tele/hw", Batch(stream=Stream.HW, boot=BOOT, seq=seq, n=len(rows), rows=rows))


@pytest.mark.stores
@pytest.mark.parametrize("batches", [1, 3])
def test_a_day_is_kept_with_its_largest_figures_in_any_order_of_arrival(fleet: MemoryFleet, batches: int) -> None:
    """A replay comes after what is new; and a device that lost its figures begins again."""
    device = fleet.enrol()
    later = replace(USED, sent_bytes=50, dropped={"hw": 4}, merged=8)
    usages = [to_document(used) for used in (later, USED, replace(USED, day="2027-01-14"))]
    for seq in range(batches):
        say(device, *usages[seq::batches], seq=seq)
        fleet.turn()
    answer = fleet.client().get("/api/devices/cam-1/usage").json()
    assert [day["day"] for day in answer["days"]] == ["2027-01-15", "2027-01-14"]
    newest = answer["days"][0]
    assert [newest[name] for name in ("sent_bytes", "received_bytes", "written_bytes", "merged")] == [50, 6, 7, 8]
    assert newest["dropped"] == {"hw": 4, "answer": 9}


@pytest.mark.parametrize(
    "usage", [{"day": "2027-13-01"}, {"day": "20270115"}, {"day": "2028-01-15"}, {"day": "2027-01-15", "merged": -1},
              {"day": "2027-01-15", "sent_bytes": 2**62}, {"day": "2027-01-15", "dropped": {"hw": "many"}}, {}]
)  # fmt: skip
def test_a_report_that_can_not_be_true_is_left_out(fleet: MemoryFleet, usage: dict[str, Json]) -> None:
    """The rest of the batch is stored and acknowledged."""
    device = fleet.enrol()
    say(device, usage)
    fleet.turn()
    assert fleet.client().get("/api/devices/cam-1/usage").json()["days"] == []
    assert device.watermark(Stream.HW) == 0


@pytest.mark.parametrize(("delay_ms", "windows"), [(LATE_MS, 0), (LATE_MS + 1, 1)])
def test_late_windows_are_counted(fleet: MemoryFleet, report: Report, delay_ms: int, windows: int) -> None:
    """One stands for more than one of the device's windows, and is longer."""
    device, now_ms = fleet.enrol(), fleet.clock()
    merged = replace(report(0, start_ms=-delay_ms - 9000), window_len_ms=9000, late=True)
    device.say("tele/drift", encode_report(merged))
    device.say("tele/drift", encode_report(report(1, start_ms=-1000)))
    fleet.turn()
    late = fleet.client().get("/api/devices/cam-1/usage").json()["late"]
    assert late == {
        "windows": windows, "n": 5 * windows, "delay_ms": delay_ms * windows, "merged": windows
    }  # fmt: skip
    assert fleet.clock() == now_ms


def test_windows_of_a_device_that_was_away_longer_than_the_retention_are_not_counted_today(
    fleet: MemoryFleet, report: Report
) -> None:
    """A hundred days of counts in the present hour would be an alarm; they keep their hour, and their number."""
    device = fleet.enrol()
    device.say("state", State(state=DeviceState.READY, at_ms=fleet.clock(), boot=BOOT))
    for seq, days in enumerate((100, 99, 0)):
        window = report(seq, start_ms=-days * DAY_MS - 1000)
        device.say("tele/drift", encode_report(replace(window, late=days > 0)))
    fleet.turn()
    windows = fleet.app.parts.windows.since(0)
    assert sorted(window.start_ms - fleet.clock() for window in windows) == [
        -100 * DAY_MS - 1000,
        -99 * DAY_MS - 1000,
        -1000,
    ]
    assert sum(window.n for window in windows) == 15


def test_losses_are_said_in_words() -> None:
    """A page shows one sentence, or two."""
    none = {"windows": 0, "n": 0, "delay_ms": 0, "merged": 0}
    assert losses_text({}, none) == "Its spool has dropped nothing."
    said = losses_text(
        {"dropped": {"hw": 1200}, "merged": 4}, {"windows": 3, "n": 1500, "delay_ms": 90 * DAY_MS, "merged": 1}
    )
    assert said == (
        "Dropped by its full spool so far: hw 1,200. Drift reports merged there: 4. "
        "Windows that came late: 3 with 1,500 inferences, up to 90 d; 1 stand for several."
    )
