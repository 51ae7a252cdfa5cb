"""Persistent lower bounds of the time and of metadata versions, for devices whose clock has no battery.

Decides whether the clock may be used to judge expiry, and whether metadata is older than any seen before. Does not set
the clock. python-tuf reads the versions from its stored metadata; if one of those files is damaged, it would accept any
older one as the first, so the versions are stored here as well. They apply under one version of root only: a new root
may start anew, which is how the owner recovers from a stolen online key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.device.disk import Disk, RealDisk
from edge_agent.device.record_file import Condition, Twin
from edge_agent.device.sane_clock import EARLIEST_MS, TOLERANCE_MS
from wire.codec import from_document, to_document
from wire.errors import MessageError


@dataclass(frozen=True, slots=True)
class TrustedTime:
    """The latest time that is proved to have passed, and the versions of metadata, by role."""

    floor_ms: int = EARLIEST_MS
    versions: Mapping[str, int] = field(default_factory=dict)

    def behind(self, versions: Mapping[str, int]) -> str:
        """Return a role whose version is older than the one seen, "" for none."""
        if versions.get("root", 0) > self.versions.get("root", 0):
            return ""
        return next((role for role, version in self.versions.items() if versions.get(role, 0) < version), "")


@dataclass(frozen=True, slots=True)
class TimeFloor:
    """The record in the file ``path`` and its copy. With none, the floor is ``EARLIEST_MS``; a lost one allows none."""

    path: Path
    disk: Disk = field(default_factory=RealDisk)

    def read(self) -> TrustedTime | None:
        """Return the record, or None if both files are damaged."""
        twin = Twin(self.path, self.disk)
        kept = [seen for document in twin.both() if (seen := _seen(document)) is not None]
        if kept:
            return max(kept, key=lambda seen: seen.floor_ms)
        return TrustedTime() if twin.read().condition is Condition.ABSENT else None

    def read_ms(self) -> int:
        """Return the floor, UTC milliseconds; ``EARLIEST_MS`` if it is lost."""
        seen = self.read()
        return EARLIEST_MS if seen is None else max(EARLIEST_MS, seen.floor_ms)

    def allows(self, now_ms: int) -> bool:
        """Return whether a clock that shows ``now_ms`` may be trusted."""
        return self.read() is not None and now_ms >= self.read_ms() - TOLERANCE_MS

    def raise_to(self, now_ms: int, versions: Mapping[str, int] | None = None) -> None:
        """Persist ``now_ms`` as the floor if it is higher, and the ``versions`` seen.

        Raises:
            OSError: If it can't be written.
        """
        old, twin = self.read() or TrustedTime(), Twin(self.path, self.disk)
        new = TrustedTime(max(old.floor_ms, now_ms), dict(versions if versions is not None else old.versions))
        if new != old or twin.read().hurt:
            twin.write(to_document(new))


def _seen(document: Mapping[str, object]) -> TrustedTime | None:
    try:
        return from_document(TrustedTime, document)  # type: ignore[arg-type]  # a record holds JSON
    except MessageError:
        return None
