"""Writes files that survive a power cut: renamed once they are complete, then the folder is flushed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from wire.durable import sync_folder


def move(part: Path, path: Path) -> None:
    """Rename ``part``, already flushed, to ``path``, and flush the folder that contains it.

    Raises:
        OSError: If it can't be renamed; ``path`` is then unchanged.
    """
    part.replace(path)
    sync_folder(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that replaces ``path`` if the block succeeds; if not, ``path`` is unchanged and nothing remains.

    Raises:
        OSError: If it can't be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        move(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
