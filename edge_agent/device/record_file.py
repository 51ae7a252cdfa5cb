"""Persistent records: one JSON object in a file of the state directory, with a format version.

Decides how the version is stored (key ``format``; records of the first agents have none and count as 1), and how a
record of a newer agent is handled: it is never read, and the first write renames it to ``<name>.newer-<format>``. Does
not decide what an unreadable record means: its owner does.

The version is raised only if an older agent would misread the record; an added key does not need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edge_agent.device.disk import Disk
from edge_agent.errors import NewerFormatError
from wire.canonical import canonical_bytes, sha256_hex
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
