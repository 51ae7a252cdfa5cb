"""When the samples of a live stream were taken: counted from the samples, held to the clock.

Reading is late by what buffers and a busy processor cost, and sound that is piped faster than it was recorded comes
early: the time between two inputs is that of their samples. A sound card's clock differs from the machine's by some
parts in 10,000, so the count is drawn to the clock by at most ``_DRAWN`` of what passed. What is further off than
``JUMP_MS`` is another time: sound was lost, the stream paused, or a clock was set.
"""

from __future__ import annotations

from edge_agent.device.clock import Clock

JUMP_MS = 5000.0
_DRAWN = 0.01


class SampleClock:
    """The time of one connection's samples. ``may_lead``: they may come faster than recorded, as in a FIFO."""

    def __init__(self, clock: Clock, *, may_lead: bool) -> None:
        """Begin with the first input."""
        self._clock, self._may_lead = clock, may_lead
        self._begun_ms: float | None = None  # when the stream began, UTC
        self._offset_ms = self._last_s = 0.0

    def at_ms(self, end_s: float) -> int:
        """Return when the sample ``end_s`` seconds after the begin of the stream was taken; it has just been read."""
        now_ms = float(self._clock.now_ms())
        offset_ms = now_ms - 1000 * self._clock.monotonic_s()
        if self._begun_ms is None:
            self._begun_ms, self._offset_ms, self._last_s = now_ms - 1000 * end_s, offset_ms, end_s
        ahead_ms = self._begun_ms + 1000 * end_s - now_ms
        was_set = abs(offset_ms - self._offset_ms) > JUMP_MS
        if was_set or ahead_ms < -JUMP_MS or (ahead_ms > JUMP_MS and not self._may_lead):
            self._begun_ms -= ahead_ms
        elif ahead_ms <= JUMP_MS:
            most_ms = 1000 * _DRAWN * (end_s - self._last_s)
            self._begun_ms -= min(max(ahead_ms, -most_ms), most_ms)
        self._offset_ms, self._last_s = offset_ms, end_s
        return round(self._begun_ms + 1000 * end_s)
