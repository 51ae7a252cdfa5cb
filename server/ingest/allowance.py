"""How much of one device is stored in a day, so that a faulty or stolen one fills neither the disk nor the event log.

A token bucket for each device: it holds a day's allowance and fills evenly. What is over it is not stored and not
acknowledged: an honest device that replays a season sends it again later, and nothing of it is lost. In memory only: a
restart of the server fills the buckets.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_DAY_MS = 86_400_000
_ROW_BYTES = 1024  # what a row costs beside its payload: columns, indices and the write-ahead log


@dataclass(slots=True)
class Allowances:
    """The buckets; ``bytes_per_day`` is the size of each, 0 for no limit. Used by the thread of ingest alone."""

    bytes_per_day: int
    _left: dict[str, tuple[float, int]] = field(default_factory=dict)

    def spend(self, device: str, payload_bytes: int, now_ms: int) -> bool:
        """Take a message of ``payload_bytes`` from the bucket of ``device``; return whether there was room for it."""
        if not self.bytes_per_day:
            return True
        left, at_ms = self._left.get(device, (float(self.bytes_per_day), now_ms))
        left = min(float(self.bytes_per_day), left + max(0, now_ms - at_ms) * self.bytes_per_day / _DAY_MS)
        cost = payload_bytes + _ROW_BYTES
        self._left[device] = (left - cost if left >= cost else left, now_ms)
        return left >= cost
