"""Persistent records: one JSON object in a file of the state directory, with a format version.

Decides how the version is stored (key ``format``; records of the first agents have none and count as 1), and how a
record of a newer agent is handled: it is never read, and the first write renames it to ``<name>.newer-<format>``. Does
not decide what an unreadable record means: its owner does.

The version is raised only if an older agent would misread the record; an added key does not need it.

Flash loses bits, and half of a file at a power cut. A *sealed* record has its own digest; a ``Twin`` is stored twice,
so that one damaged file loses nothing. Its order rule: the copy is written first, then the file itself, which takes
precedence if it is intact. A power cut between the two leaves the old record; if the file is damaged, the copy is the
same record or the next one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edge_agent.device.disk import Disk
from edge_agent.errors import NewerFormatError
from wire.canonical import canonical_bytes, sha256_file, sha256_hex
from wire.codec import Json, parse_json
from wire.errors import MessageError

FORMAT = 1
_KEY = "format"
_DIGEST = "digest"
_LASTING = ("*.json", "slots/*.json", "tuf/time_floor.json")


def read_record(path: Path, newest: int = FORMAT) -> dict[str, Json]:
    """Return the record in the file at ``path``, without its format version.

    Raises:
        OSError: If it can't be read; ``FileNotFoundError`` if there is none.
        NewerFormatError: If a newer agent wrote it; a ``MessageError`` too.
        MessageError: If it is damaged.
    """
    document = parse_json(path.read_bytes())
    found = document.pop(_KEY, 1)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        message = f"Expected the number of a format in {path}, got {found!r}"
        raise MessageError(message)
    if found > newest:
        message = f"Expected {path} of format {newest} or older, got {found}: a newer agent wrote it, run that one"
        raise NewerFormatError(message)
    return document


def record_bytes(document: Mapping[str, Json], newest: int = FORMAT) -> bytes:
    """Return a record as the bytes of its file.

    Raises:
        MessageError: If it holds a value that is not JSON-serializable.
    """
    return canonical_bytes({**document, _KEY: newest})


def write_record(disk: Disk, path: Path, document: Mapping[str, Json], newest: int = FORMAT) -> None:
    """Replace the record in the file at ``path``, durably; one that a newer agent wrote is renamed first.

    Raises:
        OSError: If it can't be written; the old one is kept then.
    """
    keep_newer(disk, path, newest)
    make_way(path)
    disk.write(path, record_bytes(document, newest))


def sealed(document: Mapping[str, Json]) -> dict[str, Json]:
    """Return a record with its own digest, so that a flipped bit that leaves it readable is detected."""
    return {**document, _DIGEST: sha256_hex(canonical_bytes(dict(document)))}


def unsealed(document: Mapping[str, Json]) -> dict[str, Json]:
    """Return a record without its digest; one of an older agent has none.

    Raises:
        MessageError: If the digest differs.
    """
    bare = {key: value for key, value in document.items() if key != _DIGEST}
    digest = document.get(_DIGEST)
    if digest is not None and digest != sha256_hex(canonical_bytes(bare)):
        message = "Expected a record as it was written, got one that its digest does not fit"
        raise MessageError(message)
    return bare


def keep_newer(disk: Disk, path: Path, newest: int = FORMAT) -> None:
    """Rename the record at ``path`` if a newer agent wrote it.

    Raises:
        OSError: If it can't be renamed.
    """
    try:
        read_record(path, newest)
    except NewerFormatError:
        found = parse_json(path.read_bytes()).get(_KEY)
        disk.move(path, beside(path, f"newer-{found}"))
    except (OSError, MessageError):
        pass  # missing or unreadable


def make_way(path: Path) -> None:
    """Rename a folder at ``path``, where a file belongs, because no file can replace it; does nothing else.

    Raises:
        OSError: If it can't be renamed.
    """
    if path.is_dir() and not path.is_symlink():
        path.rename(beside(path, "damaged"))


def remove_half_written(state: Path) -> None:
    """Remove what a power cut left of files below ``state`` that were being written; at the start, without a writer.

    The next write of a file removes its own, but some files are never written again. A failing disk is not an error.
    """
    for path in [path for folder in ("", "slots/", "tuf/") for path in state.glob(f"{folder}.*.new")]:
        with contextlib.suppress(OSError):
            path.unlink()


def newer_records(state: Path) -> list[str]:
    """Return the records below ``state`` that a newer agent wrote, one sentence each."""
    found = []
    for path in sorted(path for pattern in _LASTING for path in state.glob(pattern)):
        try:
            read_record(path)
        except NewerFormatError as error:
            found.append(str(error))
        except (OSError, MessageError):
            pass  # its owner reports it
    return found


def beside(path: Path, mark: str) -> Path:
    """Return a free name for a file to set aside: ``<name>.<mark>``, then ``<name>.<mark>-2`` and so on."""
    free, number = path.with_name(f"{path.name}.{mark}"), 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}.{mark}-{number}")
    return free


class Condition(StrEnum):
    """The condition of a file, or of a record in it."""

    WHOLE = "whole"
    ABSENT = "absent"
    DAMAGED = "damaged"  # other bytes, no file, or one that can't be read


def condition(path: Path, sha256: str) -> Condition:
    """Return the condition of the file at ``path``, which should have the digest ``sha256``. Reads all of it."""
    try:
        return Condition.WHOLE if sha256_file(path) == sha256 else Condition.DAMAGED
    except FileNotFoundError:
        return Condition.ABSENT
    except OSError:
        return Condition.DAMAGED


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

    def restore(self) -> bool:
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


def write_twice(disk: Disk, path: Path, data: bytes) -> None:
    """Replace the file at ``path`` and its copy, the copy first, durably: for files that are no records.

    Raises:
        OSError: If one can't be written.
    """
    for one in (copy_of(path), path):
        make_way(one)
        disk.write(one, data)


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
