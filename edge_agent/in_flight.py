"""The input that the inference child is processing, in a file that outlives the child: the suspect when it crashes.

Written in place before an item is decoded and after it is done: some bytes and a name into one page of the page
cache, about 2 microseconds, which the kernel writes to the disk some seconds later. It survives the end of a process.
Standard library only: the control process reads the file, too.

The next child distinguishes:

* an item marked under this start of the agent: only the child crashed, so the item is set aside (``left``);
* an item marked under another start of the agent or the machine: both ended together, most likely by a power cut. The
  item gets one more try (``again``) and is a suspect until it is done; if it is marked at another crash, whatever the
  cause, it is set aside. One suspect is kept: the last.

An image that crashes the whole machine loses the page as well. So after a crash of the machine, the first ``SYNCED``
marks are flushed to the disk: the image is known at the second crash, or the third.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from edge_agent.device.last_end import boot_id

FOLDER = "source"
IN_SOURCE = "code of a source from outside"
"""The item that is marked while such code runs: if it hangs or crashes the child, no input and no release did."""
ASKED = "a request of the local interface"
KEPT = "an input that the release before had served"
"""Items that are not of the source: nobody can try them again or set them aside. Who asked gets no answer; one that was
kept has had its answer, and only a count is lost."""
SYNCED = 20
_FILE = "in_flight"
_MAGIC = b"TFI3"
_HEAD = struct.Struct("<4sIQ8s8sHHH")
_NAME_BYTES = 1024
_IN_ORDER = bytes(8)  # in place of the machine's boot: an orderly end


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The item that child ``pid`` was processing ("" for none). ``served``: items it had served until then.

    ``item_id``: its id in answers.

    ``boot`` and ``run`` identify the start of the machine and of the agent; ``suspect``: the item on its second try.
    """

    pid: int = 0
    item: str = ""
    served: int = 0
    boot: bytes = _IN_ORDER
    run: bytes = _IN_ORDER
    suspect: str = ""
    item_id: str = ""


def read_held(state: Path) -> Held | None:
    """Return the mark of the last child on ``state``; None if there is none or it can't be read."""
    try:
        data = (state / FOLDER / _FILE).read_bytes()
    except OSError:
        return None
    if len(data) < _HEAD.size:
        return None
    magic, pid, served, boot, run, length, other, third = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        return None
    names = data[_HEAD.size :]
    ends = (0, length, length + other, length + other + third)
    item, suspect, item_id = (os.fsdecode(names[start:end]) for start, end in pairwise(ends))
    return Held(pid=pid, item=item, served=served, boot=boot, run=run, suspect=suspect, item_id=item_id)


class InFlight:
    """The child's side. Without a state directory, or if it can't be written, nothing is marked."""

    def __init__(self, state: Path | None, run: str = "") -> None:
        """Open the file below ``state``; ``run`` names the agent's start.

        ``left`` stays in the file until ``begin`` or ``end``; ``again`` is marked as the suspect.
        """
        held = (read_held(state) or Held()) if state is not None else Held()
        if held.item in {IN_SOURCE, KEPT}:
            held = replace(held, item="", item_id="")
        self._boot, self._run = _digest(boot_id()), _digest(run)
        alone = (held.boot, held.run) == (self._boot, self._run)
        self.left = held.item if alone or held.item == held.suspect else ""
        self.left_id = held.item_id if self.left else ""
        self.again = "" if self.left or held.item == ASKED else held.item
        self._suspect = os.fsencode(self.again or held.suspect)[:_NAME_BYTES]
        self._to_sync = SYNCED if held.boot not in {_IN_ORDER, self._boot} else 0
        self._descriptor = -1
        self._pid, self._served = os.getpid(), 0
        if state is None:
            return
        try:
            (state / FOLDER).mkdir(mode=0o700, exist_ok=True)
            self._descriptor = os.open(state / FOLDER / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # a read-only or full disk must not end serving
            return
        if not self.left:
            self._write(b"", sync=held.boot != self._boot)

    def begin(self, item: str, item_id: str = "") -> None:
        """Mark ``item``, whose answer will have ``item_id``, as about to be decoded."""
        both = (os.fsencode(item)[:_NAME_BYTES], os.fsencode(item_id)[:_NAME_BYTES])
        sync = self._to_sync > 0 and item != IN_SOURCE
        self._write(*both, sync=sync)
        self._to_sync -= sync

    @contextlib.contextmanager
    def during(self, item: str) -> Iterator[None]:
        """Mark ``item`` for as long as the block runs; if the block raises, the mark stays."""
        self.begin(item)
        yield
        self.end(item, served=False)

    def end(self, item: str, *, served: bool) -> None:
        """Mark ``item`` as done; ``served``: the model has run on it."""
        self._served += served
        if self._suspect and self._suspect == os.fsencode(item)[:_NAME_BYTES]:
            self._suspect = b""
        self._write(b"")

    def _write(self, name: bytes, item_id: bytes = b"", *, sync: bool = False) -> None:
        if self._descriptor < 0:
            return
        head = (_MAGIC, self._pid, self._served, self._boot, self._run, len(name), len(self._suspect), len(item_id))
        try:
            os.pwrite(self._descriptor, _HEAD.pack(*head) + name + self._suspect + item_id, 0)
            if sync:
                os.fdatasync(self._descriptor)
        except OSError:  # the first write needs a disk block: nothing is marked until there is one
            return


def clear_held(state: Path) -> None:
    """Clear the last child's mark: it was ended on purpose, so the next one should serve its item."""
    held = read_held(state)
    if held is None:
        return
    suspect = os.fsencode(held.suspect)
    data = _HEAD.pack(_MAGIC, 0, 0, _IN_ORDER, _IN_ORDER, 0, len(suspect), 0) + suspect
    try:
        descriptor = os.open(state / FOLDER / _FILE, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, data, 0)
        finally:
            os.close(descriptor)
    except OSError:  # at worst a good item is set aside
        return


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
