"""The item that the inference child works on, in a file that outlives it: who is to blame when the child ends.

Written in place before an item is decoded and after it was dealt with: 24 bytes and a name into one page of the
page cache, about 2 microseconds, which the kernel writes to the disk some seconds later. The end of a process loses
none of it; a power cut may lose the last seconds, and nobody is blamed then. Standard library only: the control
process reads what the child wrote.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

FOLDER = "source"
_FILE = "in_flight"
_MAGIC = b"TFI1"
_HEAD = struct.Struct("<4sIQH")
_NAME_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Held:
    """What child ``pid`` held: an item, or nothing (``item`` is empty). ``served``: items it has served until then."""

    pid: int
    item: str
    served: int


def read_held(state: Path) -> Held | None:
    """Return what the last child on ``state`` wrote; None where there is nothing that can be read."""
    try:
        data = (state / FOLDER / _FILE).read_bytes()
    except OSError:
        return None
    if len(data) < _HEAD.size:
        return None
    magic, pid, served, length = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        return None
    return Held(pid, os.fsdecode(data[_HEAD.size : _HEAD.size + length]), served)


class InFlight:
    """The child's side. Without a state directory, or where it can't be written, nothing is marked."""

    def __init__(self, state: Path | None) -> None:
        """Open the file below ``state``; what an earlier child left stays there until ``begin`` or ``end``."""
        self.left = (read_held(state) or Held(0, "", 0)).item if state is not None else ""
        self._descriptor = -1
        self._pid, self._served = os.getpid(), 0
        if state is None:
            return
        try:
            (state / FOLDER).mkdir(mode=0o700, exist_ok=True)
            self._descriptor = os.open(state / FOLDER / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # a read-only or full disk must not end serving
            return

    def begin(self, item: str) -> None:
        """Note that ``item`` is about to be decoded."""
        self._write(os.fsencode(item)[:_NAME_BYTES])

    def end(self, *, served: bool) -> None:
        """Note that the item was dealt with; ``served``: the model has run on it."""
        self._served += served
        self._write(b"")

    def _write(self, name: bytes) -> None:
        if self._descriptor < 0:
            return
        try:
            os.pwrite(self._descriptor, _HEAD.pack(_MAGIC, self._pid, self._served, len(name)) + name, 0)
        except OSError:  # the first write needs a block on the disk: unmarked until there is one
            return


def clear_held(state: Path) -> None:
    """Note that the last child held nothing: it was ended on purpose, so its item is to be served by the next one."""
    try:
        (state / FOLDER / _FILE).unlink(missing_ok=True)
    except OSError:  # at worst a good item is set aside
        return
