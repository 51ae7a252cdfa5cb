"""News of a folder, so that a file that is moved into it or closed after writing is found at once.

Where the kernel or the file system has no such news (network file systems), the folder is looked at regularly all the
same. A folder that goes (a card, a mount) is watched again once it is back;
watching does not keep a card from being unmounted.

Source: inotify(7). Python has no module for it; numpy has ``ctypes`` loaded already.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

_CLOSE_WRITE, _MOVED_TO = 0x8, 0x80
_MOVED_AWAY = 0x800
_IGNORED = 0x8000  # the watch has ended: the folder was removed, or its file system unmounted
_ONLY_FOLDER = 0x1000000
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
_READ_BYTES = 65_536
_AGAIN_S = 1.0
_STACK_BYTES = 256 * 1024  # by default 8 MiB count against the child's limit on memory


class FolderEvents:
    """A thread that calls ``wake`` when a file appears in ``folder`` or is written whole.

    ``works``: whether there is such news at all.
    """

    def __init__(self, folder: Path, wake: Callable[[], None]) -> None:
        """Start to watch."""
        self._folder, self._wake = os.fsencode(folder), wake
        self._end = threading.Event()
        self._alone = threading.Lock()
        self._libc = ctypes.CDLL(None, use_errno=True)
        try:
            self._descriptor = int(self._libc.inotify_init1(os.O_CLOEXEC))
        except AttributeError:  # no such call here
            self._descriptor = -1
        self._watch = -1
        self._moved: set[str] | None = None
        self.works = self._descriptor >= 0
        self.thread = threading.Thread(target=self._run, name="source-news", daemon=True)
        if self._descriptor >= 0:
            self._add()
            before = threading.stack_size(_STACK_BYTES)
            try:
                self.thread.start()
            finally:
                threading.stack_size(before)

    def _add(self) -> None:
        self._watch = self._libc.inotify_add_watch(
            self._descriptor, self._folder, _CLOSE_WRITE | _MOVED_TO | _MOVED_AWAY | _ONLY_FOLDER
        )

    def _run(self) -> None:
        while not self._end.is_set():
            if self._watch < 0:
                self._end.wait(_AGAIN_S)
                self._add()
                continue
            data = os.read(self._descriptor, _READ_BYTES)
            if self._end.is_set():
                break
            events = _events(data)
            if any(mask & (_IGNORED | _MOVED_AWAY) for mask, _ in events):
                self._watch = -1
            moved = {name for mask, name in events if mask & _MOVED_TO}
            with self._alone:
                self._moved = moved | (self._moved or set())
            self._wake()
        os.close(self._descriptor)

    def take(self) -> set[str] | None:
        """Return the names of the files that were moved in since the last call, which are whole; None without news."""
        with self._alone:
            moved, self._moved = self._moved, None
            return moved

    def close(self) -> None:
        """End the thread."""
        self._end.set()
        if self._watch >= 0:
            self._libc.inotify_rm_watch(self._descriptor, self._watch)  # which is news: the thread wakes


def _events(data: bytes) -> list[tuple[int, str]]:
    """Return the mask and the name of each event."""
    found, at = [], 0
    while at + _EVENT.size <= len(data):
        _, mask, _, length = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        found.append((mask, os.fsdecode(data[at : at + length].rstrip(b"\0"))))
        at += length
    return found
