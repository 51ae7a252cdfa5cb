"""The bytes of a file, FIFO or serial device as they arrive, without an end where there is none.

A regular file is followed: what is appended is read, one that was truncated is read again from its start, and after a
rotation (another file under the name) the old one is read to its end and then the new one. A FIFO stays open when its
writers leave. A serial device is read raw, from its first whole line on.

Source: tail(1), option -F; fifo(7), under Linux opening for reading and writing succeeds at once; termios(3).
"""

from __future__ import annotations

import errno
import os
import select
import stat
import termios
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

from edge_agent.errors import SourceError

_LOOK_S = 0.1
_READ_BYTES = 65536
CUT = b""
"""Yielded where the bytes before and after do not belong together."""


def check_baud(rate: int) -> bool:
    """Return whether a serial line may have this rate; 0: as it is."""
    return rate == 0 or hasattr(termios, f"B{rate}")


def arriving(path: Path, stop: threading.Event, *, baud: int = 0) -> Iterator[bytes]:
    """Yield what a FIFO, a serial device or another device gives, until ``stop`` is set.

    Raises:
        OSError: If it can't be opened or read.
        SourceError: If the device is gone.
    """
    fifo = stat.S_ISFIFO(path.stat().st_mode)
    descriptor = os.open(path, (os.O_RDWR if fifo else os.O_RDONLY) | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        partial = os.isatty(descriptor)
        if partial:
            tty.setraw(descriptor, termios.TCSANOW)
            if baud:
                settings = termios.tcgetattr(descriptor)
                settings[4] = settings[5] = getattr(termios, f"B{baud}")
                termios.tcsetattr(descriptor, termios.TCSANOW, settings)
        while not stop.is_set():
            if select.select([descriptor], [], [], _LOOK_S)[0]:
                data = os.read(descriptor, _READ_BYTES)
                if not data:
                    raise SourceError("the device is gone")
                if partial:  # what was sent before it was opened may be the end of a line
                    _, newline, data = data.partition(b"\n")
                    partial = not newline
                if data:
                    yield data
    finally:
        os.close(descriptor)


def followed(path: Path, stop: threading.Event, *, start: int) -> Iterator[bytes]:
    """Yield what a regular file has or gets, until ``stop`` is set; ``CUT`` where another file or content begins.

    ``start``: so many bytes are left out.

    Raises:
        OSError: If it is missing at first, or can't be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        position = os.lseek(descriptor, start, os.SEEK_SET)
        while not stop.is_set():
            if data := os.read(descriptor, _READ_BYTES):
                position += len(data)
                yield data
                continue
            here = os.fstat(descriptor)
            if here.st_size < position:
                position = os.lseek(descriptor, 0, os.SEEK_SET)
                yield CUT
            elif (other := _other(path, here)) >= 0 and not (data := os.read(descriptor, _READ_BYTES)):
                os.close(descriptor)
                descriptor, position = other, 0
                yield CUT
            elif other >= 0:  # more was written before the rotation
                os.close(other)
                position += len(data)
                yield data
            else:
                stop.wait(_LOOK_S)
    finally:
        os.close(descriptor)


def _other(path: Path, here: os.stat_result) -> int:
    """Return a descriptor of the file at ``path`` if it is not ``here``; -1 if it is, or there is none now."""
    try:
        there = path.stat()
        if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
            return -1
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EACCES}:
            return -1
        raise
