"""Counts unreadable messages, and reports each kind at most once a minute: never a crash, never a flood. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

EVERY_MS = 60_000
KEPT_KINDS = 64


@dataclass(slots=True)
class EventLimiter:
    """Counts by kind."""

    counts: dict[str, int] = field(default_factory=dict)
    _said_ms: dict[str, int] = field(default_factory=dict)

    def count(self, kind: str, now_ms: int) -> bool:
        """Count one; return whether to report it."""
        if kind not in self.counts and len(self.counts) >= KEPT_KINDS:
            kind = "other"
        self.counts[kind] = self.counts.get(kind, 0) + 1
        said_ms = self._said_ms.get(kind)
        if said_ms is not None and now_ms - said_ms < EVERY_MS:
            return False
        self._said_ms[kind] = now_ms
        return True
