"""Counts of answers by sink, in a small file that outlives the process: after kill -9 none is unaccounted for.

The file is mapped into memory: a count is one store of eight bytes, which the kernel keeps when the process is killed
(a power cut may lose the last seconds). Each count belongs to one thread. Every answer offered to a sink is filtered,
sent, dropped, or was cut off: it waited when the process ended. A source that can read an input again answers it again,
under the same id, so a cut-off answer need not be a lost one.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.sinks import FOLDER, MAX_SINKS

_FILE = "accounts"
_MAGIC = b"TFA1"
_NAME_BYTES = 64
_COUNTS = ("offered", "filtered", "sent", "dropped", "cut_off")
_PLACES = {count: _NAME_BYTES + 8 * place for place, count in enumerate(_COUNTS)}
_ROW_BYTES = _NAME_BYTES + 8 * len(_COUNTS)
_SIZE = 16 + MAX_SINKS * _ROW_BYTES
_NUMBER = struct.Struct("<Q")


@dataclass(slots=True)
class Account:
    """The counts of one sink, since it was first configured."""

    _memory: mmap.mmap
    _at: int

    def add(self, count: str, by: int = 1) -> None:
        """Add to ``offered``, ``filtered``, ``sent``, ``dropped`` or ``cut_off``."""
        place = self._at + _PLACES[count]
        _NUMBER.pack_into(self._memory, place, _NUMBER.unpack_from(self._memory, place)[0] + by)

    @property
    def counts(self) -> dict[str, int]:
        """All counts by name."""
        return {count: _NUMBER.unpack_from(self._memory, self._at + at)[0] for count, at in _PLACES.items()}

    @property
    def open(self) -> int:
        """How many answers are offered and not yet settled."""
        counts = self.counts
        return counts["offered"] - counts["filtered"] - counts["sent"] - counts["dropped"] - counts["cut_off"]


def open_accounts(state: Path | None, names: Sequence[str]) -> dict[str, Account]:
    """Return the accounts of the sinks ``names``; what an earlier process left open is counted as cut off.

    Without a ``state`` directory, or if the file can't be used, the counts live as long as the process.
    """
    memory = _mapped(state)
    old = {}
    for row in range(MAX_SINKS):
        at = 16 + row * _ROW_BYTES
        old[memory[at : at + _NAME_BYTES].rstrip(b"\0")] = memory[at : at + _ROW_BYTES]
    accounts = {}
    for row, name in enumerate(names[:MAX_SINKS]):
        at = 16 + row * _ROW_BYTES
        key = name.encode()[:_NAME_BYTES]
        memory[at : at + _ROW_BYTES] = old.get(key, key.ljust(_ROW_BYTES, b"\0"))
        accounts[name] = account = Account(memory, at)
        account.add("cut_off", max(0, account.open))
    used = 16 + len(accounts) * _ROW_BYTES
    memory[used:] = bytes(_SIZE - used)
    return accounts


def _mapped(state: Path | None) -> mmap.mmap:
    if state is not None:
        with contextlib.suppress(OSError, ValueError):  # a read-only or full disk must not end serving
            (state / FOLDER).mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(state / FOLDER / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fresh = os.fstat(descriptor).st_size != _SIZE
                if fresh:
                    os.ftruncate(descriptor, 0)
                os.posix_fallocate(descriptor, 0, _SIZE)  # a store into a hole of a full disk would end the process
                memory = mmap.mmap(descriptor, _SIZE)
            finally:
                os.close(descriptor)
            if memory[:4] != _MAGIC:
                memory[:] = _MAGIC.ljust(_SIZE, b"\0")
            return memory
    return mmap.mmap(-1, _SIZE)
