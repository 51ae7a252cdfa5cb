"""Files that are either the old or the new ones, never half of one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from wire.durable import sync_folder

_PRIVATE = 0o600


def write_atomically(path: Path, data: bytes, *, mode: int = _PRIVATE) -> None:
    """Replace ``path`` by ``data``: temporary file, sync, rename, sync of the folder.

    The temporary file has a name of its own, so that of several writers at once each writes a whole file.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_tree(folder: Path) -> None:
    """Make ``folder``, and every file and folder below it, survive a power cut."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)
