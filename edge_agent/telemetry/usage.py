"""What the device uses in each UTC day: bytes on air and bytes to the disk.

Decides to which day a figure belongs (that of the reading) and when it is reported. The day so far is carried over a
restart by ``status.json``, which is written once a minute: a restart loses at most that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from edge_agent.telemetry.byte_meter import AirBytes, ByteMeter
from wire.codec import Json, from_document, to_document
from wire.errors import MessageError
from wire.messages import DayUsage

REPORT_S = 600.0  # a report is 150 bytes: with each reading of the machine it would be most of them


@dataclass(slots=True, kw_only=True)
class UsageLedger:
    """The day so far, and the one before."""

    meter: ByteMeter
    today: DayUsage = field(default_factory=DayUsage)
    yesterday: DayUsage = field(default_factory=DayUsage)
    _read: AirBytes = field(default_factory=AirBytes)
    _written_bytes: int = 0
    _due_s: float = float("-inf")

    def restore(self, document: Mapping[str, Json]) -> None:
        """Continue from what ``document`` returned before a restart; anything else is ignored."""
        for name in ("today", "yesterday"):
            kept = document.get(name)
            try:
                setattr(self, name, from_document(DayUsage, kept if isinstance(kept, dict) else {}))
            except MessageError:
                continue

    def document(self) -> dict[str, Json]:
        """Return both days for ``status.json``."""
        return {"today": to_document(self.today), "yesterday": to_document(self.yesterday)}

    def add(self, now_ms: int, now_s: float, written_bytes: int, *, known: bool) -> DayUsage | None:
        """Add what was used since the last call; return the usage to report now, if it is time.

        ``known``: whether ``now_ms`` can be trusted; otherwise the figures wait for a call that can. A day that is over
        is returned once, complete.
        """
        self._written_bytes += written_bytes
        if not known:
            return None
        day, moved = datetime.fromtimestamp(now_ms / 1000, UTC).date().isoformat(), self.meter.read()
        is_over = self.today.day not in {"", day}
        if self.today.day != day:
            self.yesterday, self.today = self.today, DayUsage(day=day)
        fresh = moved - self._read
        self.today = replace(
            self.today,
            sent_bytes=self.today.sent_bytes + fresh.sent,
            received_bytes=self.today.received_bytes + fresh.received,
            written_bytes=self.today.written_bytes + self._written_bytes,
        )
        self._read, self._written_bytes = moved, 0
        if is_over:
            return self.yesterday
        if now_s < self._due_s:
            return None
        self._due_s = now_s + REPORT_S
        return self.today
