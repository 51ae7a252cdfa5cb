"""How a name in a folder survives a power cut: all programs rename what they wrote whole, then flush its folder.

Source: Pillai et al., All File Systems Are Not Created Equal, OSDI 2014, section 4.
"""

from __future__ import annotations

import os
from pathlib import Path


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
