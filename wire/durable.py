"""Files that survive a power cut, for all programs: written beside the target, flushed, renamed, the folder flushed.

Source: Pillai et al., All File Systems Are Not Created Equal, OSDI 2014, section 4.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PRIVATE = 0o600


def write_atomically(path: Path, data: bytes, *, mode: int = PRIVATE, alone: bool = False) -> None:
    """Replace the file at ``path`` by ``data``, whole or not at all, even if the power fails.

    Args:
        path: The file; its folder exists.
        data: The new content.
        mode: Permissions of a new file, by default for its owner only; the umask applies.
        alone: There is no other writer. The temporary file then has a fixed name, so that power cuts leave at most one
            on a small disk; otherwise its name is unique, so that concurrent writers each write a whole file.

    Raises:
        OSError: If it can't be written; the old file is then unchanged, and no partial file is left.
    """
    with replacing(path, mode=mode, alone=alone) as file:
        file.write(data)


@contextmanager
def replacing(path: Path, *, mode: int = PRIVATE, alone: bool = False) -> Iterator[BinaryIO]:
    """Yield a file that replaces the one at ``path`` if the block succeeds, as in ``write_atomically``.

    Raises:
        OSError: If it can't be written; the old file is then unchanged, and no partial file is left.
    """
    own = "" if alone else f".{os.urandom(4).hex()}"
    beside = path.with_name(f".{path.name}{own}.new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if alone else os.O_EXCL), mode)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        move(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def move(part: Path, path: Path) -> None:
    """Rename ``part``, already flushed, to ``path``, and flush the folder that contains it.

    Raises:
        OSError: If it can't be renamed; ``path`` is then unchanged.
    """
    part.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush the directory entries of ``folder`` to the disk.

    Raises:
        OSError: If it can't be opened or flushed.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
