"""The rate limit of a download: when the next bytes may be asked for, over all connections and carriers of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

_BURST_S = 0.25
"""What may be fetched at once after a pause. A piece that takes longer earns its own time."""
_SHARE = 8
_MIN_BYTES = 1024


@dataclass(slots=True)
class RateLimit:
    """At most ``bytes_per_s`` (0: no limit). ``wait`` gets the seconds to wait for, and may end early."""

    bytes_per_s: int
    wait: Callable[[float], object]
    clock_s: Callable[[], float] = field(default=time.monotonic, kw_only=True)
    _next_s: float = float("inf")  # before the first byte

    def piece(self, most: int) -> int:
        """Return how many bytes to take at a time, at most ``most``: an eighth of a second's, if there is a limit."""
        return min(most, max(_MIN_BYTES, self.bytes_per_s // _SHARE)) if self.bytes_per_s else most

    def spend(self, count: int) -> None:
        """Wait until ``count`` bytes may be taken after those before."""
        if not self.bytes_per_s:
            return
        now_s = self.clock_s()
        first, share_s = self._next_s == float("inf"), count / self.bytes_per_s
        self._next_s = (now_s if first else max(self._next_s, now_s - max(_BURST_S, share_s))) + share_s
        if self._next_s > now_s:
            self.wait(self._next_s - now_s)
