"""What this device has seen of time and of signed metadata, and never goes behind: for clocks without a battery.

Decides whether the clock may be believed for judging expiry, and whether metadata is older than what was seen. Does
not set the clock. python-tuf remembers versions in the metadata it keeps; where one of those files is damaged it would
take any older one for the first, so the versions are kept here as well. They bind under one version of root only: a
new root may begin anew, which is how the owner recovers from a stolen online key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.device.disk import Disk, RealDisk
from edge_agent.device.sane_clock import EARLIEST_MS, TOLERANCE_MS
from edge_agent.updater.storage.integrity import Condition
from edge_agent.updater.storage.twin import Twin
from wire.codec import from_document, to_document
from wire.errors import MessageError


@dataclass(frozen=True, slots=True)
class Seen:
    """The latest moment that was proved to have passed, and the versions of metadata, by role."""

    floor_ms: int = EARLIEST_MS
    versions: Mapping[str, int] = field(default_factory=dict)

    def behind(self, versions: Mapping[str, int]) -> str:
        """Return the role of which an older version than seen was offered, "" for none."""
        if versions.get("root", 0) > self.versions.get("root", 0):
            return ""
        return next((role for role, version in self.versions.items() if versions.get(role, 0) < version), "")


@dataclass(frozen=True, slots=True)
class TimeFloor:
    """The record in the file ``path`` and its copy. None yet counts as ``EARLIEST_MS``; a lost one allows nothing."""

    path: Path
    disk: Disk = field(default_factory=RealDisk)

    def read(self) -> Seen | None:
        """Return what was seen, or None when both files are damaged."""
        twin = Twin(self.path, self.disk)
        kept = [seen for document in twin.both() if (seen := _seen(document)) is not None]
        if kept:
            return max(kept, key=lambda seen: seen.floor_ms)
        return Seen() if twin.read().condition is Condition.ABSENT else None

    def read_ms(self) -> int:
        """Return the floor, UTC milliseconds; the earliest there is when it is lost."""
        seen = self.read()
        return EARLIEST_MS if seen is None else max(EARLIEST_MS, seen.floor_ms)

    def allows(self, now_ms: int) -> bool:
        """Say whether a clock that shows ``now_ms`` may be believed."""
        return self.read() is not None and now_ms >= self.read_ms() - TOLERANCE_MS

    def raise_to(self, now_ms: int, versions: Mapping[str, int] | None = None) -> None:
        """Persist ``now_ms`` as the floor if it is higher, and the ``versions`` seen.

        Raises:
            OSError: If it can't be written.
        """
        old, twin = self.read() or Seen(), Twin(self.path, self.disk)
        new = Seen(max(old.floor_ms, now_ms), dict(versions if versions is not None else old.versions))
        if new != old or twin.read().hurt:
            twin.write(to_document(new))


def _seen(document: Mapping[str, object]) -> Seen | None:
    try:
        return from_document(Seen, document)  # type: ignore[arg-type]  # a record holds JSON
    except MessageError:
        return None
