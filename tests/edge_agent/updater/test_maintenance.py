"""Maintenance windows on the device: local time, midnight, summer time, unknown clocks; and an update that waits."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from edge_agent.device.sane_clock import EARLIEST_MS, ClockWatch
from edge_agent.updater.maintenance import closed, opening, zone_of
from wire.errors import MessageError
from wire.messages import Desired, MaintenanceWindow, UpdatePhase

BERLIN = ZoneInfo("Europe/Berlin")
MINUTE_MS = 60_000


def at(text: str) -> int:
    """Return a local time of Berlin in UTC milliseconds."""
    return round(datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp() * 1000)


def window(start: str, end: str, *days: str, zone: str = "Europe/Berlin") -> MaintenanceWindow:
    """Return a window."""
    return MaintenanceWindow(start=start, end=end, days=days, time_zone=zone)


@pytest.mark.parametrize(
    ("wanted", "now", "start", "end"),
    [
        (window("09:00", "11:00"), "2026-11-30T08:59", "2026-11-30T09:00", "2026-11-30T11:00"),
        (window("09:00", "11:00"), "2026-11-30T09:00", "2026-11-30T09:00", "2026-11-30T11:00"),
        (window("09:00", "11:00"), "2026-11-30T11:00", "2026-12-01T09:00", "2026-12-01T11:00"),
        (window("22:00", "04:00"), "2026-11-30T03:59", "2026-11-29T22:00", "2026-11-30T04:00"),
        (window("22:00", "04:00"), "2026-11-30T04:00", "2026-11-30T22:00", "2026-12-01T04:00"),
        (window("22:00", "04:00", "sun"), "2026-11-30T01:00", "2026-11-29T22:00", "2026-11-30T04:00"),
        (window("22:00", "04:00", "sat"), "2026-11-30T01:00", "2026-12-05T22:00", "2026-12-06T04:00"),
        (window("00:00", "00:00", "mon"), "2026-11-30T23:59", "2026-11-30T00:00", "2026-12-01T00:00"),
        # summer time begins at 02:00 on 2026-03-29, which is 03:00 then, and ends at 03:00 on 2026-10-25
        (window("01:00", "05:00"), "2026-03-29T00:00", "2026-03-29T01:00", "2026-03-29T05:00"),
        (window("02:00", "03:00"), "2026-03-29T00:00", "2026-03-29T03:00", "2026-03-29T04:00"),
        (window("02:15", "02:45", "sun"), "2026-03-29T00:00", "2026-03-29T03:15", "2026-03-29T03:45"),
        (window("02:30", "04:00"), "2026-10-25T01:00", "2026-10-25T02:30", "2026-10-25T04:00"),
    ],
)  # fmt: skip
def test_a_window_follows_the_clock_on_the_wall(wanted: MaintenanceWindow, now: str, start: str, end: str) -> None:
    """Both sides of both bounds, over midnight, on its days, and over the two changes of summer time."""
    found = opening(wanted, at(now), BERLIN)
    assert (found.start_ms, found.end_ms) == (at(start), at(end))
    assert found.holds(at(now)) == (at(start) <= at(now) < at(end))


def test_summer_time_makes_a_window_longer_or_shorter() -> None:
    """From 01:00 to 05:00 on the wall are three hours in March and five in October."""
    for day, hours in (("2026-03-29", 3), ("2026-10-25", 5)):
        found = opening(window("01:00", "05:00"), at(f"{day}T00:30"), BERLIN)
        assert found.end_ms - found.start_ms == hours * 60 * MINUTE_MS


def test_without_a_zone_the_devices_own_local_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of the machine."""
    monkeypatch.setattr("time.tzname", ("UTC", "UTC"))
    now_ms = round(datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp() * 1000)
    hour = datetime.fromtimestamp(now_ms / 1000).astimezone().hour
    found = opening(MaintenanceWindow(start=f"{hour:02}:00", end=f"{(hour + 1) % 24:02}:00"), now_ms, None)
    assert found.holds(now_ms)
    assert found.end_ms - found.start_ms == 60 * MINUTE_MS


@pytest.mark.parametrize("name", ["Europe/Berlim", "../../etc/passwd", "/etc/localtime", "Europe", "\0"])
def test_a_zone_that_the_device_does_not_know_opens_no_window(name: str) -> None:
    """The text names it and the next step."""
    with pytest.raises(LookupError):
        zone_of(window("00:00", "00:00", zone=name))
    found = closed(Desired(window=window("00:00", "00:00", zone=name)), at("2026-11-30T12:00"), known=True)
    assert (found.code, "install tzdata" in found.text, found.until_ms) == ("time_zone_unknown", True, 0)


@pytest.mark.parametrize("now_ms", [10**17, -(10**17)])
def test_a_clock_beyond_the_calendar_opens_no_window(now_ms: int) -> None:
    """And raises nothing: the agent's loop must go on."""
    found = closed(Desired(window=window("00:00", "00:00")), now_ms, known=True)
    assert (found.code, found.until_ms) == ("window_closed", 0)


@pytest.mark.parametrize("fields", [{"start": "24:00"}, {"end": "7:00"}, {"days": ("monday",)}])
def test_a_window_that_is_none_is_refused_where_it_is_read(fields: dict) -> None:
    """A document with it is unreadable, and counted as such."""
    with pytest.raises(MessageError, match="of the maintenance window"):
        MaintenanceWindow(**fields)


def _until(device: object, minutes: int) -> MaintenanceWindow:
    """Return a daily window of an hour in UTC that opens so many minutes after the device's now."""
    start, end = (datetime.fromtimestamp(device.now_ms / 1000 + m * 60, UTC) for m in (minutes, minutes + 60))
    return window(f"{start:%H:%M}", f"{end:%H:%M}", zone="UTC")


def test_downloads_before_the_window_and_switches_inside(device: object, release: Callable) -> None:
    """Deferred with the reason and the time; then verified again, before the switch."""
    device.install(release(1))
    device.phases.clear()
    device.offer(replace(device.publish(release(2)).desired, window=_until(device, 30)))
    device.work()
    assert device.phases == ["offered", "downloading", "verifying", "window_closed"]
    until_ms, text = device.updater.status.until_ms, device.updater.status.text
    assert (until_ms > device.now_ms, text.startswith("the maintenance window opens at ")) == (True, True)
    device.pass_time((until_ms - device.now_ms) / 1000 - 1)
    device.work()
    assert (device.current(), device.updater.record.phase) == ("m-1", UpdatePhase.DEFERRED)
    device.pass_time(2)
    device.work()
    assert device.phases[4:] == ["downloading", "verifying", "staged", "probation"]
    assert (device.current(), device.updater.status.until_ms) == ("m-2", 0)


def test_a_window_that_closes_during_the_verification_is_missed(device: object, release: Callable) -> None:
    """The next one is waited for: what counts is the moment of the switch."""
    device.install(release(1))
    device.offer(replace(device.publish(release(2)).desired, window=_until(device, 0)))
    device.updater.turn(device.now_ms, device.now_s)
    device.now_s += 3600
    device.work()
    assert (device.current(), device.updater.record.code) == ("m-1", "window_closed")
    assert device.updater.status.until_ms - device.now_ms > 20 * 60 * MINUTE_MS


@pytest.mark.parametrize(("deadline_min", "late"), [(10, True), (40, False)])
def test_a_deadline_passes_outside_of_the_window_too(
    device: object,
    release: Callable,
    deadline_min: int,
    late: bool,  # noqa: FBT001 - pytest's
) -> None:
    """The status has said so before, if the window opens after it."""
    device.install(release(1))
    deadline_ms = device.now_ms + deadline_min * MINUTE_MS
    device.offer(replace(device.publish(release(2)).desired, window=_until(device, 30), deadline_ms=deadline_ms))
    device.work()
    assert device.updater.status.text.endswith("after the deadline of this attempt") == late
    device.pass_time(31 * 60)
    device.work()
    assert device.updater.record.phase is (UpdatePhase.REFUSED if late else UpdatePhase.PROBATION)


def test_a_deadline_inside_of_a_window_ends_the_attempt(device: object, release: Callable) -> None:
    """The window does not extend it; a release in probation has been switched to, and stays."""
    device.install(release(1))
    wish = replace(device.publish(release(2)).desired, window=_until(device, 0), deadline_ms=device.now_ms + 5000)
    device.offer(wish)
    device.pass_time(6)
    assert device.updater.record.code == "deadline_passed"
    device.offer(replace(wish, gen=9, deadline_ms=device.now_ms + 5000))
    device.work()
    device.pass_time(6)
    assert device.updater.record.phase is UpdatePhase.PROBATION


def test_no_window_is_open_while_the_time_is_not_known(device: object, release: Callable) -> None:
    """In 1970 with a window for all day: nothing is switched; once the server has told the time, it is open."""
    device.install(release(1))
    device.offer(replace(device.publish(release(2)).desired, window=window("00:00", "00:00", zone="UTC")))
    device.updater.watch = ClockWatch().look(0, device.now_s)
    device.work()
    assert (device.current(), device.updater.status.until_ms) == ("m-1", 0)
    assert device.updater.status.text == "the maintenance window waits for a clock that is right"
    device.updater.watch = device.updater.watch.with_server_time(EARLIEST_MS, device.now_s)
    device.pass_time(2)
    device.work()
    assert device.updater.record.code != "window_closed"


def test_a_clock_that_is_set_moves_the_opening(device: object, release: Callable) -> None:
    """It was an hour behind: the status names the right time at once, and a restart keeps it."""
    device.install(release(1))
    device.offer(replace(device.publish(release(2)).desired, window=_until(device, 30)))
    device.work()
    before_ms = device.updater.status.until_ms
    device.now_s += 24 * 3600 + 3 * 3600
    device.pass_time(0)
    assert device.updater.status.until_ms == before_ms + 2 * 24 * 60 * MINUTE_MS
    device.restart()
    assert device.updater.status.until_ms == before_ms + 2 * 24 * 60 * MINUTE_MS
