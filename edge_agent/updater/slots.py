"""Slots A and B: tiny files that point at bundles; ``current`` holds the name of one and is replaced by one rename.

Decides how the choice of a release is kept. Does not decide which release to choose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.disk import Disk
from edge_agent.record_file import read_record, write_record
from wire.codec import Json, from_document, to_document
from wire.errors import MessageError

NAMES = ("a", "b")


@dataclass(frozen=True, slots=True)
class SlotRelease:
    """What a slot points at."""

    release: str = ""
    sha256: str = ""
    security_floor: int = 0
    latency_budget_ms: float = 0.0
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots, the security floor and the counters of starts, below the state directory."""

    state: Path
    disk: Disk

    def current_name(self) -> str:
        """Return ``a``, ``b``, or nothing when no release is installed."""
        try:
            name = (self.state / "slots" / "current").read_text().strip()
        except (OSError, UnicodeDecodeError):
            return ""
        return name if name in NAMES and self.read(name) is not None else ""

    def current(self) -> SlotRelease | None:
        """Return the current release."""
        return self.read(self.current_name())

    def previous(self) -> SlotRelease | None:
        """Return the release that is not current."""
        return self.read(other(self.current_name()))

    def read(self, name: str) -> SlotRelease | None:
        """Return what a slot points at, or None when it is empty or damaged."""
        if name not in NAMES:
            return None
        try:
            found = from_document(SlotRelease, read_record(self.state / "slots" / f"{name}.json"))
        except (OSError, MessageError):
            return None
        return found if found.sha256 else None

    def fill(self, name: str, release: SlotRelease) -> None:
        """Point a slot at a release.

        Raises:
            OSError: If it can't be written.
        """
        write_record(self.disk, self.state / "slots" / f"{name}.json", to_document(release))

    def empty(self, name: str) -> None:
        """Point a slot at nothing.

        Raises:
            OSError: If it can't be written.
        """
        self.disk.remove(self.state / "slots" / f"{name}.json")

    def switch(self, name: str) -> None:
        """Make a slot current; no name: none.

        Raises:
            OSError: If it can't be written; the other one stays current then.
        """
        path = self.state / "slots" / "current"
        if name:
            self.disk.write(path, name.encode())
        else:
            self.disk.remove(path)

    def bundle(self, sha256: str) -> Path:
        """Return where a bundle lies, or would."""
        return self.state / "blobs" / "sha256" / sha256

    def floor(self) -> int:
        """Return the highest security floor that was committed."""
        return self._numbers("floor.json").get("security_floor", 0)

    def raise_floor(self, floor: int) -> None:
        """Keep ``floor`` if it is higher than the one kept.

        Raises:
            OSError: If it can't be written.
        """
        if floor > self.floor():
            write_record(self.disk, self.state / "floor.json", {"security_floor": floor})

    def boots(self, name: str) -> int:
        """Return how often a slot was started without becoming healthy."""
        return self._numbers("slots/boots.json").get(name, 0)

    def set_boots(self, name: str, count: int) -> None:
        """Keep how often a slot was started without becoming healthy.

        Raises:
            OSError: If it can't be written.
        """
        counts = self._numbers("slots/boots.json")
        if name in NAMES and counts.get(name, 0) != count:
            write_record(self.disk, self.state / "slots" / "boots.json", {**counts, name: count})

    def reclaim(self, keep: frozenset[str]) -> int:
        """Remove every bundle and part but those of the slots and of ``keep`` (digests); return how many went.

        Raises:
            OSError: If one can't be removed.
        """
        held = {found.sha256 for name in NAMES if (found := self.read(name)) is not None} | keep
        folder = self.state / "blobs" / "sha256"
        gone = [path for path in folder.glob("*") if path.name.removesuffix(".part") not in held]
        for path in gone:
            self.disk.remove(path)
        return len(gone)

    def _numbers(self, name: str) -> dict[str, int]:
        try:
            document = read_record(self.state / name)
        except (OSError, MessageError):
            return {}
        return {key: value for key, value in document.items() if isinstance(value, int)}


def other(name: str) -> str:
    """Return the other slot; of none, the first."""
    return "b" if name == "a" else "a"
