"""How a file survives a power cut, in all programs: written whole beside, flushed, renamed, its folder flushed.

Source: Pillai et al., All File Systems Are Not Created Equal, OSDI 2014, section 4.
"""

from __future__ import annotations

import os
from pathlib import Path

PRIVATE = 0o600


def write_atomically(path: Path, data: bytes, *, mode: int = PRIVATE, alone: bool = False) -> None:
    """Replace the file at ``path`` by ``data``: all of it or nothing, also when the power goes.

    Args:
        path: the file; its folder is there.
        data: what is in it afterwards.
        mode: who may read and write a new file, by default its owner alone; the umask applies.
        alone: nobody else writes it. The file beside it then has one name, so that power cuts leave one at most on a
            small disk; otherwise it has a name of its own, and of several writers at once each writes a whole file.

    Raises:
        OSError: If it can't be written; the old file is untouched then, and nothing half-written stays.
    """
    own = "" if alone else f".{os.urandom(4).hex()}"
    beside = path.with_name(f".{path.name}{own}.new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if alone else os.O_EXCL), mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in ``folder`` to the disk.

    Raises:
        OSError: If it can't be opened or flushed.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
