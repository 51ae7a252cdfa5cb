"""How a finished file of the compressor survives a power cut: renamed when it is whole, then its folder flushed.

Source: Pillai et al., All File Systems Are Not Created Equal, OSDI 2014, section 4.
"""

from __future__ import annotations

import os
from pathlib import Path


def move(part: Path, path: Path) -> None:
    """Rename ``part``, whose bytes or folder are flushed, to ``path``, and flush the folder that it is in now.

    Raises:
        OSError: If it can't be renamed; ``path`` is then as before.
    """
    part.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in ``folder`` to disk.

    Raises:
        OSError: If it can't be opened or flushed.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
