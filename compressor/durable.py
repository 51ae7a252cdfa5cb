"""How a finished file of the compressor survives a power cut: renamed when it is whole, then its folder flushed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from wire.durable import sync_folder


def move(part: Path, path: Path) -> None:
    """Rename ``part``, whose bytes or folder are flushed, to ``path``, and flush the folder that it is in now.

    Raises:
        OSError: If it can't be renamed; ``path`` is then as before.
    """
    part.replace(path)
    sync_folder(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that becomes ``path`` when the block ends well; if not, ``path`` is as before and nothing is left.

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
