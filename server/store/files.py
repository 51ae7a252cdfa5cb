"""Syncs a folder tree to disk."""

from __future__ import annotations

import os
from pathlib import Path

from wire.durable import sync_folder


def sync_tree(folder: Path) -> None:
    """Sync ``folder``, and every file and folder below it, so that they survive a power cut."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)
