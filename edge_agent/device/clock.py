"""The clock interface: wall time for reports, monotonic time for durations."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """The source of time; read once per turn of the loop."""

    def now_ms(self) -> int:
        """Return UTC milliseconds since 1970."""

    def monotonic_s(self) -> float:
        """Return seconds that never jump, from an arbitrary start."""


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        """Return UTC milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Return seconds that never jump, from an arbitrary start."""
        return time.monotonic()


@dataclass(slots=True)
class FakeClock:
    """A clock that moves only by ``advance``; both times advance together."""

    wall_ms: int = 1_790_000_000_000
    monotonic: float = 0.0

    def now_ms(self) -> int:
        """Return UTC milliseconds since 1970."""
        return self.wall_ms

    def monotonic_s(self) -> float:
        """Return seconds that never jump, from an arbitrary start."""
        return self.monotonic

    def advance(self, seconds: float) -> None:
        """Move both clocks forward by ``seconds``."""
        self.wall_ms += round(seconds * 1000)
        self.monotonic += seconds
