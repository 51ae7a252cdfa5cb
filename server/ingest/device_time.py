"""When something happened on a device: the device's own time if plausible, else the time of arrival. Pure.

A device's clock may show 1970 or next year. Its times only order what it sends. An implausible time must not make a
row that counts as the newest, is never deleted or is deleted at once, nor a window that makes the server recompute
the fleet's evidence. See ADR 16.
"""

from __future__ import annotations

from dataclasses import dataclass

_MAX_WINDOW_MS = 7 * 86_400_000  # a longer window has no grid worth keeping


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTime:
    """The plausible times of something that arrives at ``now_ms``.

    ``skew_ms``: tolerated error of a clock. ``oldest_ms``: an older time can't be told from a wrong clock.
    ``is_off``: the device's clock is known to be off by more, so a message that seems late is not.
    """

    now_ms: int
    skew_ms: int
    oldest_ms: int
    is_off: bool = False

    def of(self, at_ms: int) -> int:
        """Return the time of something at ``at_ms`` by the device's clock; never after its arrival."""
        return min(at_ms, self.now_ms) if self._can_be(at_ms, at_ms) else self.now_ms

    def of_window(self, start_ms: int, len_ms: int) -> int:
        """Return the start under which a window is stored: its own, or that of the window in which it arrived."""
        length_ms = min(len_ms, _MAX_WINDOW_MS)
        if self._can_be(
            start_ms, start_ms + 2 * length_ms
        ):  # it is sent after its end, by the next one's at the latest
            return start_ms
        return self.now_ms - self.now_ms % max(length_ms, 1)

    def _can_be(self, at_ms: int, sent_ms: int) -> bool:
        if not self.now_ms - self.oldest_ms < at_ms <= self.now_ms + self.skew_ms:
            return False
        return not self.is_off or sent_ms >= self.now_ms - self.skew_ms
