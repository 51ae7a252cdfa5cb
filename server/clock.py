"""The clock: a function, so that tests can pass their own."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Returns the time as UTC milliseconds."""


def system_now_ms() -> int:
    """Return the system's time as UTC milliseconds."""
    return time.time_ns() // 1_000_000
