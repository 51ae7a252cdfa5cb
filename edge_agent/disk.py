"""The disk seam of an update: the few operations that must be durable, so that tests can crash after each.

Decides how a file is made durable: written beside, flushed to the disk, renamed, the folder flushed.
Source: Pillai et al., All File Systems Are Not Created Equal, OSDI 2014, section 4.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Protocol


class Disk(Protocol):
    """Durable operations; each is all or nothing."""

    def write(self, path: Path, data: bytes) -> None:
        """Replace the file at ``path`` by ``data``, atomically and durably."""

    def move(self, source: Path, target: Path) -> None:
        """Flush ``source`` and rename it to ``target``, durably; same folder or file system."""

    def remove(self, path: Path) -> None:
        """Remove ``path`` if it exists, durably."""

    def free_bytes(self, folder: Path) -> int:
        """Return what can still be written below ``folder``."""


class RealDisk:
    """The machine's file system."""

    def write(self, path: Path, data: bytes) -> None:
        """Replace the file at ``path`` by ``data``, atomically and durably.

        Raises:
            OSError: If it can't; the old file is untouched then.
        """
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.new")
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError:
            beside.unlink(missing_ok=True)  # a full disk: nothing half-written stays
            raise
        _flush_folder(path.parent)

    def move(self, source: Path, target: Path) -> None:
        """Flush ``source`` and rename it to ``target``, durably.

        Raises:
            OSError: If it can't.
        """
        with source.open("rb") as file:
            os.fsync(file.fileno())
        source.replace(target)
        _flush_folder(target.parent)

    def remove(self, path: Path) -> None:
        """Remove ``path`` if it exists, durably.

        Raises:
            OSError: If it can't.
        """
        path.unlink(missing_ok=True)
        if path.parent.exists():
            _flush_folder(path.parent)

    def free_bytes(self, folder: Path) -> int:
        """Return what can still be written below ``folder``.

        Raises:
            OSError: If it can't be told.
        """
        return shutil.disk_usage(folder).free


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
