"""The folder ``bad``: keeps inputs that could not be served for a person to look at, limited in number and bytes.

Decides what is deleted when it is full: the oldest that was moved here. Only files that this module named are ever
deleted; a foreign file in the folder stays.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from pathlib import Path

from edge_agent.device.disk import RealDisk

FOLDER = "bad"
MAX_FILES = 200
MAX_BYTES = 64 * 1024 * 1024
MAX_SKIPPED = 1000
_SKIPPED = "skipped.json"
_OURS = re.compile(r"(\d{8})-[a-z0-9_]{1,32}-.")
_MAX_NAME_BYTES = 120


class BadInputs:
    """The folder ``bad`` in the state directory; without a state directory nothing can be moved."""

    def __init__(self, state: Path | None, *, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> None:
        """Use ``state``; the folder is created for the first file."""
        self._folder = state / FOLDER if state is not None else None
        self._max_files, self._max_bytes = max_files, max_bytes

    def move_in(self, path: Path, code: str) -> bool:
        """Move ``path`` here under a number, ``code`` and its own name; False if it has to stay.

        It stays if there is no state directory, it exceeds the folder's limit, or the disk reports an error.
        """
        if self._folder is None:
            return False
        try:
            size_bytes = path.stat().st_size
            if size_bytes > self._max_bytes:
                return False
            self._folder.mkdir(mode=0o700, exist_ok=True)
            held = sorted(file for file in self._folder.iterdir() if _OURS.match(file.name))  # oldest first
            number = int(held[-1].name[:8]) + 1 if held else 1
            self._make_room(held, size_bytes)
            tail = os.fsdecode(os.fsencode(path.name)[-_MAX_NAME_BYTES:])
            _moved(path, self._folder / f"{number % 10**8:08d}-{code[:32]}-{tail}")
        except OSError:
            return False
        return True

    def _make_room(self, held: list[Path], size_bytes: int) -> None:
        sizes = [path.lstat().st_size for path in held]
        total_bytes = sum(sizes) + size_bytes
        for place, (path, size) in enumerate(zip(held, sizes, strict=True)):
            if total_bytes <= self._max_bytes and len(held) - place < self._max_files:
                return
            path.unlink()
            total_bytes -= size


def _moved(path: Path, target: Path) -> None:
    try:
        path.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = target.with_name(f".{target.name}")  # another file system: copied, flushed, then deleted
        try:
            shutil.copyfile(path, beside)
            RealDisk().move(beside, target)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        path.unlink()


class Skipped:
    """Items that crashed a child and can't be moved away (a replay, a folder whose files stay): never taken again.

    Stored in a small file across restarts; beyond ``MAX_SKIPPED`` the oldest are forgotten.
    """

    def __init__(self, state: Path | None) -> None:
        """Read the stored items."""
        self._file = state / "source" / _SKIPPED if state is not None else None
        self._items: dict[str, None] = dict.fromkeys(self._read())

    def _read(self) -> list[str]:
        try:
            found = json.loads(self._file.read_bytes()) if self._file is not None else []
        except (OSError, ValueError):
            return []
        return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []

    def __contains__(self, item: str) -> bool:
        """Return whether ``item`` is skipped."""
        return item in self._items

    def add(self, item: str) -> None:
        """Skip ``item`` from now on; if it can't be stored, until this process ends."""
        self._items[item] = None
        while len(self._items) > MAX_SKIPPED:
            del self._items[next(iter(self._items))]
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            RealDisk().write(self._file, json.dumps(list(self._items)).encode())
