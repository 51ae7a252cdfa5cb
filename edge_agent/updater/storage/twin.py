"""A record that is stored twice, each with its digest: one damaged file loses nothing.

Order rule: the copy is written first, then the file itself, which takes precedence if it is intact. A power cut between
the two leaves the old record; if the file is damaged, the copy is the same record or the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_agent.device.disk import Disk
from edge_agent.device.record_file import read_record, sealed, unsealed, write_record
from edge_agent.updater.storage.integrity import Condition
from wire.codec import Json
from wire.errors import MessageError


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """The intact part of a record. ``hurt``: one of the two files is damaged."""

    condition: Condition
    document: Mapping[str, Json]
    hurt: bool = False


@dataclass(frozen=True, slots=True)
class Twin:
    """The record in the file ``path`` and in its copy beside it."""

    path: Path
    disk: Disk

    @property
    def copy(self) -> Path:
        """The path of the copy."""
        return copy_of(self.path)

    def read(self) -> StoredRecord:
        """Return the record from the file, or from its copy if the file is damaged."""
        found = (_read(self.path), _read(self.copy))
        whole = [one for one in found if one.condition is Condition.WHOLE]
        if whole:
            lost = len(whole) == 1 and (found[0].condition is not Condition.WHOLE or bool(found[0].hurt))
            return StoredRecord(Condition.WHOLE, whole[0].document, lost or whole[0].document != whole[-1].document)
        damaged = any(one.condition is Condition.DAMAGED for one in found)
        return StoredRecord(Condition.DAMAGED if damaged else Condition.ABSENT, {}, damaged)

    def both(self) -> tuple[Mapping[str, Json], ...]:
        """Return every intact copy: for numbers of which the higher one counts."""
        return tuple(one.document for one in (_read(self.path), _read(self.copy)) if one.condition is Condition.WHOLE)

    def write(self, document: Mapping[str, Json]) -> None:
        """Store the record.

        Raises:
            OSError: If it can't be written; the previous one is kept then.
        """
        for path in (self.copy, self.path):
            write_record(self.disk, path, sealed(document))

    def mend(self) -> bool:
        """Write the record again if one of its files is damaged; return whether one was.

        Raises:
            OSError: If it can't be written.
        """
        found = self.read()
        if found.condition is Condition.WHOLE and found.hurt:
            self.write(found.document)
            return True
        return False


def copy_of(path: Path) -> Path:
    """Return the path of the copy of a file that is stored twice."""
    return path.with_name(f"{path.stem}.copy{path.suffix}")


def _read(path: Path) -> StoredRecord:
    """Read one file. ``hurt`` marks a sealed one, whose missing copy was lost; an older agent's file has no copy."""
    try:
        document = read_record(path)
        bare = unsealed(document)
    except FileNotFoundError:
        return StoredRecord(Condition.ABSENT, {})
    except (OSError, MessageError):
        return StoredRecord(Condition.DAMAGED, {})
    return StoredRecord(Condition.WHOLE, bare, bare != document)
