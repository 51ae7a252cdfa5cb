"""A record that lasts: one JSON object in a file of the state directory, under the number of its format.

Decides how the number is kept (key ``format``; records of the first agents have none and are of format 1), and what
becomes of a record that a newer agent wrote: it is never read, and the first write moves it beside, to
``<name>.newer-<format>``. Does not decide what an unreadable record means: its owner does.

A format gets a new number only when an older agent would misread it; a key that is added needs none.
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
    """Return the record in the file at ``path``, without the number of its format.

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
        MessageError: If it holds what JSON can't carry.
    """
    return canonical_bytes({**document, _KEY: newest})


def write_record(disk: Disk, path: Path, document: Mapping[str, Json], newest: int = FORMAT) -> None:
    """Replace the record in the file at ``path``, durably; one that a newer agent wrote is moved beside first.

    Raises:
        OSError: If it can't be written; the old one is kept then.
    """
    keep_newer(disk, path, newest)
    make_way(path)
    disk.write(path, record_bytes(document, newest))


def sealed(document: Mapping[str, Json]) -> dict[str, Json]:
    """Return a record with its own digest, so that a changed bit that leaves it readable is seen."""
    return {**document, _DIGEST: sha256_hex(canonical_bytes(dict(document)))}


def unsealed(document: Mapping[str, Json]) -> dict[str, Json]:
    """Return a record without its digest; one of an older agent has none.

    Raises:
        MessageError: If the digest is another one.
    """
    bare = {key: value for key, value in document.items() if key != _DIGEST}
    digest = document.get(_DIGEST)
    if digest is not None and digest != sha256_hex(canonical_bytes(bare)):
        message = "Expected a record as it was written, got one that its digest does not fit"
        raise MessageError(message)
    return bare


def keep_newer(disk: Disk, path: Path, newest: int = FORMAT) -> None:
    """Move the record at ``path`` beside if a newer agent wrote it.

    Raises:
        OSError: If it can't be moved.
    """
    try:
        read_record(path, newest)
    except NewerFormatError:
        found = parse_json(path.read_bytes()).get(_KEY)
        disk.move(path, beside(path, f"newer-{found}"))
    except (OSError, MessageError):
        pass  # none, or one that nobody can read


def make_way(path: Path) -> None:
    """Move a folder that lies where a file belongs beside, since no file can replace it; nothing else is touched.

    Raises:
        OSError: If it can't be moved.
    """
    if path.is_dir() and not path.is_symlink():
        path.rename(beside(path, "damaged"))


def newer_records(state: Path) -> list[str]:
    """Return which records below ``state`` a newer agent wrote, one sentence each."""
    found = []
    for path in sorted(path for pattern in _LASTING for path in state.glob(pattern)):
        try:
            read_record(path)
        except NewerFormatError as error:
            found.append(str(error))
        except (OSError, MessageError):
            pass  # its owner tells
    return found


def beside(path: Path, mark: str) -> Path:
    """Return a name that is free for what is set aside: ``<name>.<mark>``, then ``<name>.<mark>-2`` and so on."""
    free, number = path.with_name(f"{path.name}.{mark}"), 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}.{mark}-{number}")
    return free
