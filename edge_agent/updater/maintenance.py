"""When a recurring maintenance window is open on this device, and when it opens next; only ``zone_of`` reads files.

Windows follow the clock on the wall. When summer time begins, an hour is missing: a window that lies in it opens an
hour later on that day. When it ends, an hour comes twice: a time in it means the first of the two.

Source: PEP 495 (``fold``); PEP 615, the zones of the system (Debian: ``tzdata``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo

from wire.messages import DAYS, Desired, MaintenanceWindow

_AHEAD_DAYS = 8  # a week, and today
_HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Opening:
    """A window that is open, or the next one: from ``start_ms`` until before ``end_ms``, UTC; ``text``: local time."""

    start_ms: int
    end_ms: int
    text: str

    def holds(self, now_ms: int) -> bool:
        """Return whether it is open."""
        return self.start_ms <= now_ms < self.end_ms


def opening(window: MaintenanceWindow, now_ms: int, zone: tzinfo | None) -> Opening | None:
    """Return the window that is open at ``now_ms``, otherwise the next one; None if the clock shows no usable time.

    ``zone``: of the window, None for the device's own.
    """
    try:
        today = datetime.fromtimestamp(now_ms / 1000, zone).date()
        for ahead in range(-1, _AHEAD_DAYS):  # the one of yesterday may still be open
            day = today + timedelta(days=ahead)
            if window.days and DAYS[day.weekday()] not in window.days:
                continue
            start = _at(day, window.start, zone)
            end = _at(day + timedelta(days=window.end <= window.start), window.end, zone)
            start_ms, end_ms = (round(one.timestamp() * 1000) for one in (start, end))
            if end_ms <= start_ms:  # its start is in the missing hour, its end just after
                end_ms += _HOUR_MS
            if now_ms < end_ms:
                shown = start.astimezone(zone)
                return Opening(start_ms, end_ms, shown.isoformat(sep=" ", timespec="minutes"))
    except (OverflowError, ValueError, OSError):  # a year beyond 9999
        return None
    return None


def _at(day: date, clock: str, zone: tzinfo | None) -> datetime:
    return datetime.combine(day, time.fromisoformat(clock), zone)


def zone_of(window: MaintenanceWindow) -> tzinfo | None:
    """Return the time zone of ``window``, None for the device's own.

    Raises:
        LookupError: If this device does not know it.
    """
    if not window.time_zone:
        return None
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - half a megabyte, for windows only

    try:
        return ZoneInfo(window.time_zone)
    except (LookupError, ValueError, OSError) as error:  # no such zone, no zone's name, a folder
        raise LookupError(window.time_zone) from error


@dataclass(frozen=True, slots=True)
class Closed:
    """Why a release is not switched to now; ``until_ms``: when the window opens, 0 if that is unknown."""

    code: str
    text: str
    until_ms: int = 0


WINDOW_CODES = frozenset({"window_closed", "time_zone_unknown"})


def closed(desired: Desired, now_ms: int, *, known: bool) -> Closed | None:
    """Return why the window of ``desired`` is closed, None if it is open or there is none; ``known``: the time is."""
    if desired.window is None:
        return None
    try:
        zone = zone_of(desired.window)
    except LookupError:
        text = f"Expected a device that knows the time zone {desired.window.time_zone!r} of the maintenance window"
        return Closed("time_zone_unknown", f"{text}, got none: install tzdata on it, or correct the name")
    found = opening(desired.window, now_ms, zone) if known else None
    if found is None:
        return Closed("window_closed", "the maintenance window waits for a clock that is right")
    if found.holds(now_ms):
        return None
    late = ", after the deadline of this attempt" if 0 < desired.deadline_ms < found.start_ms else ""
    return Closed("window_closed", f"the maintenance window opens at {found.text}{late}", found.start_ms)
