"""Is the wall clock to be believed, and since when? Pure: readings in, a new value out.

A device without a clock battery wakes in 1970, one with a bad battery may wake years ahead. What is known against it:

1. a lower bound: this code did not exist before ``EARLIEST_MS``, and a persisted floor may prove a later moment;
2. a hint: a time that the server named (``Ack.at_ms``, the HTTP header ``Date``), carried on by the monotonic clock.

A hint is not authenticated well enough to judge whether signed metadata has expired, so it never makes an install
possible. It only says that the clock is wrong, and stands in for it where the server itself set the times: windows,
deadlines, the moment under which telemetry is filed. Decides nothing about what waits for a sane clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

EARLIEST_MS = 1_767_225_600_000  # 2026-01-01: this code did not exist before
TOLERANCE_MS = 60_000  # an NTP step back of under a minute is no fault
HINT_TOLERANCE_MS = 86_400_000  # a message may have waited in the broker; no one certificate or window is that short


class ClockFault(StrEnum):
    """Why the clock is not believed; also the code of what waits for it."""

    BEHIND = "clock_behind"
    AHEAD = "clock_ahead"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockWatch:
    """What is known of the wall clock. Moments ``_s`` are of the monotonic clock.

    ``sane_since_s``: since when the clock is believed, None while it is not. ``hint_ms`` of 0: none was heard.
    """

    lower_ms: int = EARLIEST_MS
    hint_ms: int = 0
    hint_s: float = 0.0
    fault: ClockFault | None = None
    sane_since_s: float | None = None

    def at_least(self, lower_ms: int) -> ClockWatch:
        """Return this watch knowing that ``lower_ms`` has passed."""
        return replace(self, lower_ms=max(self.lower_ms, lower_ms))

    def heard(self, server_ms: int, now_s: float) -> ClockWatch:
        """Return this watch after the server named a time; one below the lower bound is no hint."""
        if server_ms < self.lower_ms - TOLERANCE_MS:
            return self
        return replace(self, hint_ms=server_ms, hint_s=now_s)

    def look(self, now_ms: int, now_s: float) -> ClockWatch:
        """Return this watch after a look at both clocks."""
        estimate_ms = self._estimate_ms(now_s)
        fault = None
        if now_ms < self.lower_ms - TOLERANCE_MS or (estimate_ms and now_ms < estimate_ms - HINT_TOLERANCE_MS):
            fault = ClockFault.BEHIND
        elif estimate_ms and now_ms > estimate_ms + HINT_TOLERANCE_MS:
            fault = ClockFault.AHEAD
        if fault is not None:
            return replace(self, fault=fault, sane_since_s=None)
        since_s = now_s if self.sane_since_s is None else self.sane_since_s
        return replace(self, fault=None, sane_since_s=since_s)

    @property
    def known(self) -> bool:
        """Whether the time is known: from the clock, or from the server."""
        return self.fault is None or self.hint_ms > 0

    def time_ms(self, now_ms: int, now_s: float) -> int:
        """Return the time to go by: the clock's where it is believed, else the server's; where neither, the clock's."""
        return now_ms if self.fault is None else self._estimate_ms(now_s) or now_ms

    def _estimate_ms(self, now_s: float) -> int:
        return self.hint_ms + round((now_s - self.hint_s) * 1000) if self.hint_ms else 0
