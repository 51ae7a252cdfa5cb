"""The latest moment this device can prove has passed, kept across reboots: for devices without a clock battery.

Decides whether the clock may be believed for judging expiry. Does not set the clock.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edge_agent.record_file import read_record, record_bytes
from edge_agent.sane_clock import EARLIEST_MS, TOLERANCE_MS
from wire.errors import MessageError


@dataclass(frozen=True, slots=True)
class TimeFloor:
    """The floor in the file ``path``; a missing or damaged file counts as ``EARLIEST_MS``."""

    path: Path

    def read_ms(self) -> int:
        """Return the floor, UTC milliseconds."""
        try:
            value = read_record(self.path).get("floor_ms")
        except (OSError, MessageError):
            return EARLIEST_MS
        return max(EARLIEST_MS, value) if isinstance(value, int) else EARLIEST_MS

    def allows(self, now_ms: int) -> bool:
        """Say whether a clock that shows ``now_ms`` may be believed."""
        return now_ms >= self.read_ms() - TOLERANCE_MS

    def raise_to(self, now_ms: int) -> None:
        """Persist ``now_ms`` as the floor if it is higher.

        Raises:
            OSError: If the file can't be written.
        """
        if now_ms <= self.read_ms():
            return
        part = self.path.with_suffix(".part")
        with part.open("wb") as file:
            file.write(record_bytes({"floor_ms": now_ms}))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)
