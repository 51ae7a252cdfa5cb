"""Decides whether the wall clock can be trusted, and since when. Pure: readings in, a new value out.

A device without a clock battery starts in 1970, one with a bad battery may start years ahead. Two checks against that:

1. a lower bound: this code did not exist before ``EARLIEST_MS``, and a persisted floor may prove a later moment;
2. a hint: a time that the server sent (``Ack.at_ms``, the HTTP header ``Date``), extrapolated by the monotonic clock.

A hint is not authenticated well enough to judge whether signed metadata has expired, so it never makes an install
possible. It only shows that the clock is wrong, and replaces it where the server itself set the times: windows,
deadlines, the time stamps of telemetry. Does not decide what waits for a trusted clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

EARLIEST_MS = 1_767_225_600_000  # 2026-01-01: this code did not exist before
TOLERANCE_MS = 60_000  # an NTP step back of less than a minute is no fault
_STEADY_MS = 3_600_000  # a known error that changes by less is the same: hints come late by seconds
HINT_TOLERANCE_MS = 86_400_000  # a message may have waited in the broker; no certificate or window is shorter


class ClockFault(StrEnum):
    """Why the clock is not trusted; also the code of a step that waits for it."""

    BEHIND = "clock_behind"
    AHEAD = "clock_ahead"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockWatch:
    """The knowledge about the wall clock. Times ``_s`` are of the monotonic clock.

    ``sane_since_s``: since when the clock is trusted, None while it is not. ``hint_ms`` of 0: no hint yet.
    ``error_ms``: how far an untrusted clock is ahead of the hint (behind: below 0); 0 if trusted, or without a hint.
    """

    lower_ms: int = EARLIEST_MS
    hint_ms: int = 0
    hint_s: float = 0.0
    fault: ClockFault | None = None
    error_ms: int = 0
    sane_since_s: float | None = None

    def at_least(self, lower_ms: int) -> ClockWatch:
        """Return this watch with ``lower_ms`` as a lower bound of the time."""
        return replace(self, lower_ms=max(self.lower_ms, lower_ms))

    def with_server_time(self, server_ms: int, now_s: float) -> ClockWatch:
        """Return this watch with the server's time as a hint; a time below the lower bound is ignored."""
        if server_ms < self.lower_ms - TOLERANCE_MS:
            return self
        return replace(self, hint_ms=server_ms, hint_s=now_s)

    def look(self, now_ms: int, now_s: float) -> ClockWatch:
        """Return this watch after reading both clocks."""
        estimate_ms = self._estimate_ms(now_s)
        fault = None
        if now_ms < self.lower_ms - TOLERANCE_MS or (estimate_ms and now_ms < estimate_ms - HINT_TOLERANCE_MS):
            fault = ClockFault.BEHIND
        elif estimate_ms and now_ms > estimate_ms + HINT_TOLERANCE_MS:
            fault = ClockFault.AHEAD
        if fault is not None:
            error_ms = now_ms - estimate_ms if estimate_ms else 0
            if self.error_ms and abs(error_ms - self.error_ms) < _STEADY_MS:
                error_ms = self.error_ms
            return replace(self, fault=fault, error_ms=error_ms, sane_since_s=None)
        since_s = now_s if self.sane_since_s is None else self.sane_since_s
        return replace(self, fault=None, error_ms=0, sane_since_s=since_s)

    @property
    def known(self) -> bool:
        """Whether the time is known: from the clock, or from the server."""
        return self.fault is None or self.hint_ms > 0

    def time_ms(self, now_ms: int, now_s: float) -> int:
        """Return the time to use: the clock's if trusted, else by the server's hint; without one, the clock's."""
        return now_ms if self.fault is None else self._estimate_ms(now_s) or now_ms

    def _estimate_ms(self, now_s: float) -> int:
        return self.hint_ms + round((now_s - self.hint_s) * 1000) if self.hint_ms else 0
